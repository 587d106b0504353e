//! The terminal, as long as `watch` has all of it: the alternate screen, keys without Enter, and the way
//! back whatever happens.
//!
//! Given back when the screen is dropped, also while a panic unwinds; a signal ends `watch` in good order.
//! A panic gives it back before its message is written, which would vanish with the alternate screen.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

/// Alternate screen, no cursor, no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Columns and rows of the terminal.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// The whole terminal.
pub(crate) struct Screen(Arc<Held>);

struct Held {
    /// Modes of the keyboard before, where that is a terminal.
    before: Option<Termios>,
    is_left: AtomicBool,
}

impl Screen {
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = if stdin.is_terminal() { Some(tcgetattr(&stdin)?) } else { None };
        let held = Arc::new(Held { before, is_left: AtomicBool::new(false) });
        let of_panics = Arc::clone(&held);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            of_panics.leave();
            hook(panic);
        }));
        let screen = Self(held);
        if let Some(before) = &screen.0.before {
            let mut modes = before.clone();
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            // Nobody would give the screen back to the shell.
            modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &modes)?;
        }
        write(ENTER)?;
        Ok(screen)
    }

    /// Draws these lines, which fill the window, over what was there. What is left of a line goes before it is
    /// written: behind a full one it would take the last character with it.
    pub(crate) fn draw(&self, lines: &[String]) -> io::Result<()> {
        if self.0.is_left.load(Ordering::Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        write(&format!("\x1b[H\x1b[K{}", lines.join("\r\n\x1b[K")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Held {
    fn leave(&self) {
        if !self.is_left.swap(true, Ordering::AcqRel) {
            let _ = write(LEAVE);
            if let Some(before) = &self.before {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
            }
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// What somebody wants of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Quit,
    /// The window has another size.
    Redraw,
}

/// Calls `tell` for each wish, by key or signal, on threads of their own, until it says `false`.
pub(crate) fn hear(tell: impl Fn(Wish) -> bool + Clone + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
    let of_keys = tell.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if !tell(if signal == SIGWINCH { Wish::Redraw } else { Wish::Quit }) {
                break;
            }
        }
    });
    if io::stdin().is_terminal() {
        std::thread::spawn(move || {
            // `q`, and Ctrl-D; Ctrl-C comes as a signal.
            for key in io::stdin().lock().bytes().map_while(Result::ok) {
                if matches!(key, b'q' | b'Q' | 4) && !of_keys(Wish::Quit) {
                    break;
                }
            }
        });
    }
    Ok(())
}

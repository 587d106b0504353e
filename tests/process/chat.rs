//! The `chat` example as two people use it, through pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use crate::peer::{HANG, example};

struct Chat {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    invite: String,
}

impl Chat {
    fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(example("chat"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a program that is not read would block")]
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let stdin = child.stdin.take();
        let mut chat = Self { child, stdin, lines, invite: String::new() };
        let first = chat.next();
        let invite = first.strip_prefix("invite: ").expect("an invite comes first");
        invite.clone_into(&mut chat.invite);
        chat
    }

    fn next(&mut self) -> String {
        self.lines.recv_timeout(HANG).expect("a line")
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line, without who said it.
    fn hears(&mut self) -> String {
        let line = self.next();
        let (who, said) = line.split_once(": ").expect("somebody said it");
        assert_eq!(who.len(), 8, "{line}");
        said.to_owned()
    }

    fn end(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
        assert!(self.lines.iter().next().is_none(), "nothing else was shown");
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lines_typed_on_one_side_appear_on_the_other() {
    let mut first = Chat::start(&[]);
    first.say("is anybody there?");
    let mut second = Chat::start(&[&first.invite]);
    assert_eq!(second.hears(), "is anybody there?", "what was said before is there");
    second.say("yes \u{1b}[31m, me");
    assert_eq!(first.hears(), "yes [31m, me", "without what a terminal obeys");
    // Whom the second invites is in the same chat.
    let mut third = Chat::start(&[&second.invite]);
    third.say("and me");
    assert_eq!((first.hears(), second.hears()), ("and me".to_owned(), "and me".to_owned()));
    let heard = [third.hears(), third.hears()];
    assert!(heard.contains(&"is anybody there?".to_owned()), "{heard:?}");
    for chat in [third, second, first] {
        chat.end();
    }
}

#[test]
fn a_damaged_invite_is_refused_with_the_reason_and_is_not_shown() {
    // It was shown whole, with the secret in it.
    let first = Chat::start(&[]);
    // A piece that begins with a hyphen would be an option.
    let is_start = |at: &usize| first.invite[*at..].starts_with(char::is_alphanumeric);
    let middle = (first.invite.len() / 2..first.invite.len()).find(is_start).unwrap();
    let (start, end) = first.invite.split_at(middle);
    let letters = first.invite.strip_prefix("sorcha:").unwrap();
    for (damaged, reason) in [
        (vec![start], "the invite is damaged"),
        (vec![start, "A", end], "the invite is damaged"),
        (vec![letters], "sorcha:"),
    ] {
        let output = Command::new(example("chat")).args(&damaged).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason), "{said}");
        // No piece of it either.
        let text = letters.as_bytes();
        let shown = text.windows(8).find(|piece| said.contains(str::from_utf8(piece).unwrap()));
        assert_eq!(shown, None, "{said}");
    }
    // What a mail has broken into two is whole again.
    let second = Chat::start(&[start, end]);
    for chat in [second, first] {
        chat.end();
    }
}

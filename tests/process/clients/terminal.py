#!/usr/bin/env python3
"""Runs a program in a terminal of its own, and tells what it did with it.

    terminal.py COLUMNSxROWS UNTIL THEN -- COMMAND…

Waits until the text UNTIL was written, twice so that something was drawn anew. THEN is what comes next: keys
to press (as "q" or "\\x03"), or the name of a signal. Writes one JSON object once the program has ended: its
`status` (negative: the signal that killed it), its `output`, and whether the modes of the terminal are those
of before (`restored`).
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

HANG_S = 120


def main():
    size, until, then, dashes, *command = sys.argv[1:]
    assert dashes == "--" and command, __doc__
    columns, rows = map(int, size.split("x"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    before = termios.tcgetattr(slave)

    def own_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    program = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    output, ends = b"", time.monotonic() + HANG_S
    is_asked = False
    while True:
        if time.monotonic() > ends:
            program.kill()
            sys.exit(f"still running after {HANG_S} s: {output.decode(errors='replace')}")
        if select.select([master], [], [], 0.1)[0]:
            output += os.read(master, 65536)
        elif program.poll() is not None:
            break
        if not is_asked and output.count(until.encode()) >= 2:
            is_asked = True
            if then.startswith("SIG"):
                program.send_signal(getattr(signal, then))
            else:
                os.write(master, then.encode().decode("unicode_escape").encode("latin-1"))
    print(json.dumps({
        "status": program.returncode,
        "output": output.decode(errors="replace"),
        "restored": termios.tcgetattr(slave) == before,
    }))


main()

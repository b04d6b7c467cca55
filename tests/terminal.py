"""A person's terminal: runs a command in it, and shows what the screen has at each moment."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte


class Terminal:
    """A terminal of so many columns and lines."""

    def __init__(self, columns=100, lines=60):
        self.screen = pyte.Screen(columns, lines)
        self.frames = []
        self.status = None

    def pytest(self, folder, *args, seconds=90):
        """Run pytest in a folder until it ends; ``frames`` has the screens that it showed, ``status`` how it ended."""
        stream = pyte.ByteStream(self.screen)
        ours, theirs = pty.openpty()
        size = struct.pack("HHHH", self.screen.lines, self.screen.columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        running = subprocess.Popen(
            [sys.executable, "-m", "pytest", *args],
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm-256color"},
            close_fds=True,
        )
        os.close(theirs)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if not select.select([ours], [], [], 1)[0]:
                    continue
                try:
                    data = os.read(ours, 65536)
                except OSError:  # Linux's end of a pty
                    break
                if not data:
                    break
                stream.feed(data)
                self.frames.append(self.text())
            self.status = running.wait(10)
        finally:
            running.kill()
            os.close(ours)
        return self

    def text(self):
        """The lines of the screen, without blanks at their ends."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

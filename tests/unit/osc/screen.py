"""A pseudo-terminal and a tiny screen behind it: shows what an operator would see."""

import fcntl
import os
import re
import struct
import termios
import unicodedata

import fixtures

_TOKEN = re.compile(r"\x1b\[(\??)(\d*)([A-Za-z])|(.)", re.DOTALL)


class Terminal(fixtures.Fixture):
    """``stream`` is what a program writes to; ``rows()`` what then stands on the screen."""

    def __init__(self, columns=80, rows=24):
        super().__init__()
        self.columns, self.height = columns, rows

    def _setUp(self):
        self._master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.addCleanup(os.close, self._master)
        self.addCleanup(self.stream.close)
        os.set_blocking(self._master, False)
        self.raw = ""
        self.resize(self.columns, self.height)

    def resize(self, columns, rows):
        """Change the size, as dragging the window's corner does."""
        self.read()
        self.columns, self.height = columns, rows
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        """Take up what was written; return all of it since the beginning."""
        self.stream.flush()
        data = b""
        while True:
            try:
                data += os.read(self._master, 65536)
            except BlockingIOError:
                break
        self.raw += data.decode("utf-8")
        return self.raw

    def rows(self):
        """Return the screen's rows, the blank ones at the end left out."""
        screen, row, column = [""], 0, 0
        for private, number, letter, char in _TOKEN.findall(self.read()):
            if char == "\n":
                row += 1
                screen += [""] * (row + 1 - len(screen))
            elif char == "\r":
                column = 0
            elif char:
                if column == self.columns:
                    row, column = row + 1, 0
                    screen += [""] * (row + 1 - len(screen))
                screen[row] = screen[row][:column].ljust(column) + char + screen[row][column + 1:]
                column += 0 if unicodedata.combining(char) else 1
            elif letter == "F":
                row, column = max(row - int(number or 1), len(screen) - self.height, 0), 0
            elif letter == "K":
                screen[row] = screen[row][:column]
            elif letter == "J":
                screen = screen[: row + 1]
                screen[row] = screen[row][:column]
            elif not private:
                raise AssertionError(f"a sequence this screen does not know: {number}{letter}")
        while screen and not screen[-1].strip():
            screen.pop()
        return [line.rstrip() for line in screen]

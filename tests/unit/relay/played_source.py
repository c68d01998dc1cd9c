"""Plays the QEMU of a source for the tests: a guest that writes, and the decision to stop it.

Writes a migration stream into a real connection from a thread of its own, as QEMU's migration
thread does: blocking, 32 pages at a time, and in iterations; see PlayedSource.
"""

import struct
import threading
import time

import numpy as np

PAGE_BYTES = 4096
_NAME = b"pc.ram"
_RECORD_BYTES = 8 + PAGE_BYTES
_PAGES_AT_ONCE = 32
_LIMIT_SECONDS, _ITERATION_SECONDS, _WINDOW_SECONDS = 0.05, 0.05, 0.1
_CONTINUE, _PAGE = 0x20, 0x08


class PlayedSource:
    """A guest of which ``dirty`` of the first ``working_set`` pages are written to each second.

    It stops the guest, as migration_iteration_run does, when after a look at what is dirty less is
    left than went within 0.05 s at the speed of the last 0.1 s.
    """

    def __init__(self, connection, pages: int, working_set: int, dirty: float, seed: int):
        self._connection = connection
        self._random = np.random.default_rng(seed)
        self._memory = self._random.integers(0, 256, (pages, PAGE_BYTES), np.uint8)
        self._working_set, self._dirty = working_set, dirty
        self._window, self._written, self._threshold = (0.0, 0), 0, 0.0
        self._looked = time.monotonic()
        self.looks: list[tuple[float, int, float]] = []
        #: time.monotonic() of the moment at which the guest stood still.
        self.stopped_at: float | None = None
        self.error: OSError | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._stream()
        except OSError as error:
            self.error = error

    def _stream(self) -> None:
        size, mem = len(self._memory) * PAGE_BYTES, bytes([len(_NAME)]) + _NAME
        self._send(b"QEVM" + struct.pack(">IBIB3sIIQ", 3, 1, 2, 3, b"ram", 0, 4, size | 4)
                   + mem + struct.pack(">QQ", size, 0x10) + struct.pack(">BI", 0x7E, 2))
        left = np.arange(len(self._memory))
        while True:
            self._note_speed()
            if len(left) * PAGE_BYTES <= self._threshold:
                left = np.union1d(left, self._look())
                self.looks.append((time.monotonic(), len(left) * PAGE_BYTES, self._threshold))
                if len(left) * PAGE_BYTES < self._threshold:
                    break
            left = self._section(2, left, _ITERATION_SECONDS)
        self.stopped_at = time.monotonic()
        self._section(3, left, 1e9)
        self._send(b"\x04device state" * 100 + b"\0")

    def _section(self, kind: int, left: np.ndarray, seconds: float) -> np.ndarray:
        """Send pages for a time, the clock being looked at every 64; return those that are left."""
        self._send(struct.pack(">BI", kind, 2))
        begun, at, first = time.monotonic(), 0, True
        while at < len(left) and (at % 64 or time.monotonic() - begun <= seconds):
            self._send(self._records(left[at:at + _PAGES_AT_ONCE], first))
            at, first = at + _PAGES_AT_ONCE, False
        self._send(struct.pack(">QBI", 0x10, 0x7E, 2))
        return left[at:]

    def _records(self, pages: np.ndarray, first: bool) -> bytes:
        records = np.empty((len(pages), _RECORD_BYTES), np.uint8)
        headers = (pages.astype(np.uint64) * PAGE_BYTES | (_PAGE | _CONTINUE)).astype(">u8")
        records[:, :8] = headers.view(np.uint8).reshape(-1, 8)
        records[:, 8:] = self._memory[pages]
        made = records.tobytes()
        if not first:
            return made
        header = struct.pack(">Q", int(pages[0]) * PAGE_BYTES | _PAGE)
        return header + bytes([len(_NAME)]) + _NAME + made[8:]

    def _look(self) -> np.ndarray:
        """Return the pages that were written to since the last look, changed by now."""
        now = time.monotonic()
        writes = int(self._dirty * (now - self._looked))
        self._looked = now
        pages = np.unique(self._random.integers(0, self._working_set, writes))
        self._memory[pages, :64] = self._random.integers(0, 256, (len(pages), 64), np.uint8)
        return pages

    def _note_speed(self) -> None:
        now = time.monotonic()
        began, before = self._window
        if now - began >= _WINDOW_SECONDS:
            if began:
                self._threshold = _LIMIT_SECONDS * (self._written - before) / (now - began)
            self._window = (now, self._written)

    def _send(self, data: bytes) -> None:
        self._connection.sendall(data)
        self._written += len(data)

"""QEMU's return path, as far as the relay must know it: when the destination has loaded all.

Used by source.py. Messages are u16 type, u16 length, data (QEMU migration/migration.c); the type
SHUT is the destination's last word, without which the source is not done.
"""

import struct

_HEADER = struct.Struct(">HH")
_SHUT = 1
_TYPES = 16
_LONGEST_BYTES = 1 << 10


class ReturnPath:
    """Cuts what comes back in front of the SHUT message; anything unknown passes as it is."""

    def __init__(self):
        self._pending = bytearray()
        self._understood = True
        self.shut_seen = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what may pass at once, and what begins with SHUT (empty until it comes)."""
        if not self._understood or self.shut_seen:
            return bytes(data), b""
        self._pending += data
        passed = 0
        while len(self._pending) - passed >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._pending, passed)
            if kind == 0 or kind >= _TYPES or length > _LONGEST_BYTES:
                self._understood = False
                return self._take(len(self._pending)), b""
            if kind == _SHUT:
                self.shut_seen = True
                before = self._take(passed)
                return before, self._take(len(self._pending))
            if len(self._pending) - passed < _HEADER.size + length:
                break
            passed += _HEADER.size + length
        return self._take(passed), b""

    def rest(self) -> bytes:
        """Return the beginning of a message that never became whole."""
        return self._take(len(self._pending))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

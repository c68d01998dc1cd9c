"""How well pages compress: zstd level 1, as the streams would be, on samples.

Used by scan.py inside the privileged process while a slice of guest memory is in its buffer; keeps
sizes and never the pages.
"""

import zstandard

LEVEL = 1


class Gauge:
    """Adds up sizes before and after compression of page samples."""

    def __init__(self):
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False,
                                                    write_content_size=False)
        self.raw_bytes = 0
        self._packed_bytes = 0

    def add(self, pages: list[memoryview]) -> None:
        """Compress these pages as one block: neighbours help each other as in a stream."""
        block = b"".join(pages)
        self.raw_bytes += len(block)
        self._packed_bytes += min(len(block), len(self._compressor.compress(block)))

    @property
    def ratio(self) -> float | None:
        """Size after as a share of the size before, 0..1; None without a sample."""
        return self._packed_bytes / self.raw_bytes if self.raw_bytes else None

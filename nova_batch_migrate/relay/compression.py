"""zstd contexts: what a block repeats of earlier ones costs next to nothing, or compressing does.

Encoder and decoder hold one pair a part of their log. A context can begin anew at any block (other
level, or a cut log); the decoder is told by a flag of the block.
"""
import zstandard

from nova_batch_migrate.relay.wire import CodecError

#: Up to this level speed comes first: the match finder remembers no more than a block. So a long
#: block is a context of its own, which spares zstd's own copy of it on either side and a window in
#: memory that was never touched: half of the time, for 3 % more bytes than with matches from far
#: back (eight alike guests that the dictionary has room for).
FAST_LEVEL = 1
_FAST_WINDOW_LOG = 20
#: As long as nobody says that what is far back comes again.
_NEAR_WINDOW_LOG = 27
#: Of zstd's fast strategy, with a table that the first-level cache holds: no fewer matches in
#: memory pages than its own choice, in less time. At its fast levels, which leave out more, half
#: of that is enough: 1 % more bytes in 7 % less time.
_FAST_FINDER = {"min_match": 6, "hash_log": 13}
_FASTEST_FINDER = {"min_match": 6, "hash_log": 12}
#: Of what comes again from far back: whole pages, mostly. Eight places of each are looked up, in a
#: quarter of the memory; as many bytes as with zstd's own choice, which looks up 32, in three
#: quarters of the time.
_FAR_MATCHES = {"ldm_hash_rate_log": 9, "ldm_min_match": 256}
_FAR_FINDER = {"min_match": 7, "hash_log": 12}


class Compressor:
    """One side of a context; every `compress` ends at a byte from which its input can be had.

    alone_bytes: from how many on a block stands for itself where speed comes first.
    """

    def __init__(self, level: int, window_log: int, long_matches: bool,
                 alone_bytes: int = 128 << 10):
        self._window_log, self._long = window_log, long_matches
        self._alone_bytes = alone_bytes
        self._far = False
        self.restart(level)

    def restart(self, level: int | None = None) -> None:
        """Begin anew with the next block, maybe with another level.

        One that looks far does that for a lower level only, and once: what lies far back is worth
        more than levels are.
        """
        if level is not None and self._far:
            if self.level <= FAST_LEVEL or level >= self.level:
                return
            level = FAST_LEVEL
        if level is not None:
            self.level = level
        self._object = self._whole = None

    def look_far(self) -> None:
        """Look as far back as the window is large from now on, at any level: content comes again.
        """
        if self._long and not self._far:
            self._far = True
            self.restart()

    def compress(self, data) -> tuple[bytes, bool]:
        """Return the compressed bytes and whether a new context began with them."""
        if self._is_fast and memoryview(data).nbytes >= self._alone_bytes:
            self._object = None
            if self._whole is None:
                self._whole = self._compressor(write_content_size=1)
            return self._whole.compress(data), True
        anew = self._object is None
        if anew:
            self._object = self._compressor(write_content_size=0).compressobj()
        packed = self._object.compress(data)
        return packed + self._object.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), anew

    @property
    def _is_fast(self) -> bool:
        return self.level <= FAST_LEVEL and not self._far

    def _compressor(self, **parameters) -> zstandard.ZstdCompressor:
        level, most, fast = self.level, _NEAR_WINDOW_LOG, self._is_fast
        if fast:
            most = _FAST_WINDOW_LOG
            parameters |= _FAST_FINDER if level > 0 else _FASTEST_FINDER
        elif self._far:
            level, most = max(level, FAST_LEVEL), self._window_log
            parameters |= _FAR_MATCHES | (_FAR_FINDER if level == FAST_LEVEL else {})
        return zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                level, enable_ldm=self._long and not fast, write_checksum=0,
                window_log=min(self._window_log, most), **parameters))


class Decompressor:
    """The other side: gives exactly as many bytes as asked for, from exactly what came."""

    def __init__(self, window_log: int):
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << window_log)
        self._reader = None
        self._source = _Source()

    def decompress_into(self, packed, target: memoryview, anew: bool) -> None:
        """Fill target from packed; CodecError if they do not belong together."""
        if anew:
            self._source = _Source()
            self._reader = self._decompressor.stream_reader(self._source, read_across_frames=False)
        elif self._reader is None:
            raise CodecError("a block goes on with a compression context that never began")
        self._source.offer(packed)
        try:
            if len(target) and self._reader.readinto(target) != len(target):
                raise CodecError("a block's compressed part ends too early")
        except zstandard.ZstdError as error:
            self._reader = None
            raise CodecError(f"a block's compressed part is broken: {error}") from error
        except CodecError:
            self._reader = None
            raise

    def restart(self) -> None:
        """Forget the context: the next block begins anew."""
        self._reader = None


class _Source:
    """What the reader reads from: the block's bytes once, then an error instead of an end."""

    def __init__(self):
        self._offered = b""

    def offer(self, packed) -> None:
        self._offered = bytes(packed)

    def read(self, _size: int = -1) -> bytes:
        packed, self._offered = self._offered, b""
        if not packed:
            raise CodecError("a block's compressed part ends too early")
        return packed

"""What a contender makes of migration streams: bytes in, bytes on the wire out, all at one layer.

Used by bytes_on_wire for streams from files and, through a sink, for live ones. A codec serves one
group: `feed(guest, chunk)`, `dry(guest)` and `end(guest)` return bytes that go out now.
"""
import pathlib
import subprocess
import threading
import time
from collections.abc import Sequence

import numpy as np
import xxhash
import zstandard

from nbmbench import machine
from nova_batch_migrate.relay import wire
from nova_batch_migrate.relay.admission import Recurring
from nova_batch_migrate.relay.decoder import Decoder, Event
from nova_batch_migrate.relay.encoder import CREDIT, Encoder
from nova_batch_migrate.relay.layout import HEADER_BYTES, PAGE_BYTES, RECORD_BYTES, Run
from nova_batch_migrate.relay.levels import LevelChooser
from nova_batch_migrate.relay.qemu_stream import QemuStream
from nova_batch_migrate.relay.runs import Runs
from nova_batch_migrate.relay.settings import LogSettings

CHUNK_BYTES = 256 << 10


class Raw:
    """Stock QEMU: the stream as it is."""

    def __init__(self, copies: Sequence[pathlib.Path] = ()):
        self._copies = [path.open("wb") for path in copies]

    def feed(self, guest: int, chunk: memoryview) -> int:
        if self._copies:
            self._copies[guest].write(chunk)
        return len(chunk)

    def dry(self, guest: int) -> int:
        return 0

    def end(self, guest: int) -> int:
        if self._copies:
            self._copies[guest].close()
        return 0


class ZstdGroup:
    """The rival: one zstd stream over all guests of the group, with a long window."""

    def __init__(self, members: int, level: int = 1, window_log: int = 30):
        self._left = members
        self._object = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                level, window_log=window_log, enable_ldm=True)).compressobj()

    def feed(self, guest: int, chunk: memoryview) -> int:
        return len(self._object.compress(chunk))

    def dry(self, guest: int) -> int:
        return len(self._object.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    def end(self, guest: int) -> int:
        self._left -= 1
        return self.dry(guest) if self._left else len(self._object.flush())


class Relay:
    """This project's relay core; with `verify`, its own decoder has to give the same bytes back.

    With `adapts_to`, a link's bytes/s, the level moves as the daemon moves it on a host that has a
    core to spare: by the seconds that encoding takes of a core, and those that the link would take.
    The daemon goes by the wall's clock, so that what else a busy host does lowers its level; here
    the level must not tell how busy the machine of the benchmark was.
    """

    def __init__(self, settings: LogSettings, verify: bool = False,
                 adapts_to: float | None = None):
        self.encoder = Encoder(settings)
        self._link, self._levels = adapts_to, LevelChooser(settings.level)
        #: Raw bytes sent at each level.
        self.levels: dict[str, int] = {}
        self._decoder = Decoder(settings.static) if verify else None
        self._reader = wire.FrameReader()
        self._fed: dict[int, bytearray] = {}
        self._raw: dict[int, int] = {}
        self.overhead_bytes = self._out(self.encoder.hello())

    def open(self, guest: int, server: str) -> None:
        self._raw[guest] = 0
        self._fed[guest] = bytearray()
        self.overhead_bytes += self._out(self.encoder.open_stream(guest + 1, server))

    def feed(self, guest: int, chunk: memoryview) -> int:
        if guest not in self._raw:
            self.open(guest, f"server-{guest}")
        self._raw[guest] += len(chunk)
        if self._decoder:
            self._fed[guest] += chunk
        begun = time.thread_time()
        frames = self.encoder.feed(guest + 1, chunk)
        core = time.thread_time() - begun
        sent = self._settle(guest, frames)
        if self._link:
            level = str(self._levels.level)
            self.levels[level] = self.levels.get(level, 0) + len(chunk)
            self.encoder.set_level(self._levels.note(core, core, sent / self._link, len(chunk)))
        return sent

    def dry(self, guest: int) -> int:
        return self._settle(guest, self.encoder.flush(guest + 1)) if guest in self._raw else 0

    def end(self, guest: int) -> int:
        sent = self._settle(guest, self.encoder.end(guest + 1))
        if self._fed[guest]:
            raise AssertionError(f"{len(self._fed[guest])} bytes of guest {guest} never came out")
        return sent

    def statistics(self) -> dict:
        return self.encoder.statistics().as_dict()

    def _settle(self, guest: int, frames: list[bytes]) -> int:
        """Count frames, check what they give, and let the encoder forget them."""
        sent = self._out(frames)
        if frames:
            self.encoder.on_frame(wire.Frame(
                wire.Kind.CREDIT, guest + 1, 0,
                CREDIT.pack(self._raw[guest], self.encoder.sequence)))
        return sent

    def _out(self, frames: list[bytes]) -> int:
        if self._decoder:
            for frame in frames:
                for whole in self._reader.feed(frame):
                    for delivery in self._decoder.feed(whole):
                        if delivery.event is Event.DATA:
                            self._check(delivery)
        return sum(map(len, frames))

    def _check(self, delivery) -> None:
        kept = self._fed[delivery.stream - 1]
        size = len(delivery.data)
        if bytes(kept[:size]) != bytes(delivery.data):
            raise AssertionError(f"stream {delivery.stream} came out other than it went in")
        del kept[:size]


def run(codec, streams: Sequence[pathlib.Path]) -> tuple[list[int], list[int], float]:
    """Send files through a codec one after the other: wire and raw bytes of each, CPU seconds."""
    sent, raw = [], []
    began = time.thread_time()
    for guest, path in enumerate(streams):
        total = 0
        with path.open("rb") as file:
            buffer = memoryview(bytearray(CHUNK_BYTES))
            while got := file.readinto(buffer):
                total += codec.feed(guest, buffer[:got])
        sent.append(total + codec.end(guest))
        raw.append(path.stat().st_size)
    return sent, raw, time.thread_time() - began


def recurring(streams: Sequence[pathlib.Path], seed: int = 1) -> Recurring:
    """Return what a scan of these guests would say that it has seen more than once."""
    hashes: list[int] = []
    for path in streams:
        parser, found, at = QemuStream(), Runs(), 0
        data = memoryview(path.read_bytes())
        while True:
            found.clear()
            following = parser.parse(data, at, min(len(data), at + (1 << 20)), found)
            if following == at:
                break
            for kind, start, count, _, _ in found.table.tolist():
                if kind >= Run.PAGES:
                    header, step = (HEADER_BYTES, RECORD_BYTES) if kind == Run.PAGES else (
                        0, PAGE_BYTES)
                    hashes += [xxhash.xxh3_64_intdigest(data[page:page + PAGE_BYTES], seed)
                               for page in range(start + header, start + header + count * step,
                                                 step)]
            at = following
    contents, counts = np.unique(np.array(hashes, np.uint64), return_counts=True)
    return Recurring(seed, np.unique((contents[counts > 1] & np.uint64(0xffffffff)).astype(
        np.uint32)))


class ZstdCommand:
    """The zstd command over files behind each other, each given to it when its turn comes."""

    def __init__(self, *options: str):
        self._words = ("zstd", "-q", "-c", "-T1", *options)
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)
        self._size = 0
        self._counting = threading.Thread(target=self._count, daemon=True)
        self._counting.start()

    def feed(self, path: pathlib.Path) -> None:
        """Give it a file; returns when it has read all of it, but for what a pipe holds."""
        subprocess.run(["cat", path], stdout=self._process.stdin, check=True)

    def end(self) -> tuple[int, float]:
        """Return bytes and CPU seconds of all; RuntimeError if it failed."""
        self._process.stdin.close()
        self._counting.join()
        # it has closed its output and is still to be waited for
        usage = machine.cpu_seconds(self._process.pid)
        self._process.stdout.close()
        if self._process.wait():
            raise RuntimeError(f"{' '.join(self._words)} ended with {self._process.returncode}")
        return self._size, usage

    def _count(self) -> None:
        while chunk := self._process.stdout.read(1 << 20):
            self._size += len(chunk)


def zstd(streams: Sequence[pathlib.Path], *options: str) -> tuple[int, float]:
    """Return bytes and CPU seconds of the zstd command over files behind each other."""
    command = ZstdCommand(*options)
    for each in streams:
        command.feed(each)
    return command.end()

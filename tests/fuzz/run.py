"""Sends mutated migration streams through encoder and decoder: equal output or a clean error.

    python -m tests.fuzz.run --count 1000000

Prints how often each part of the format was reached, and how many bytes past the RAM header were
followed. A fixed --seed gives the same streams again. The unit tests run a few thousand.
"""
import argparse
import collections
import dataclasses
import faulthandler
import functools
import pathlib
import random
import resource
import signal
import time

import numpy as np
import xxhash

from nova_batch_migrate.relay import kernel, qemu_stream, reference, runs
from nova_batch_migrate.relay.admission import Recurring
from nova_batch_migrate.relay.decoder import Decoder, Event
from nova_batch_migrate.relay.encoder import Encoder
from nova_batch_migrate.relay.layout import PAGE_BYTES
from nova_batch_migrate.relay.settings import MIN_DICTIONARY_BYTES, LogSettings
from nova_batch_migrate.relay.wire import CannotTruncate, FrameReader, RelayError

SEEDS = pathlib.Path(__file__).with_name("seeds")
SECONDS_PER_STREAM = 20             # of a core; longer is a hang
STREAMS_PER_LOG = 64
MEASURED_STREAMS = 500              # from one look at the memory to the next; CI's run has a few
GROWTH_BYTES = 64 << 20             # of the process, over what it held at the first look
BROKEN_FRAME_SHARE = 0.15
SERVERS = ("server 0", "server 1", "server 2")
LEVELS = (None, 1, 1, -5, 4)
INTERESTING = (0, 1, 2, 4, 7, 8, 0x10, 0x20, 0x28, 0x22, 0x7e, 0x7f, 0x80, 0xff)


@dataclasses.dataclass
class Report:
    """What a run has reached."""

    streams: int = 0
    equal: int = 0
    clean_errors: int = 0
    survived: int = 0               # broken frames that the decoder could not know to be broken
    bytes_fed: int = 0
    bytes_past_ram_header: int = 0
    reached_pages: int = 0          # streams in which page records were seen
    hits: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def lines(self) -> list[str]:
        return [f"{self.streams} streams, {self.bytes_fed} bytes: {self.equal} came out equal, "
                f"{self.clean_errors} ended with a clean error, {self.survived} broken frames "
                "passed for sound ones",
                f"page records reached in {self.reached_pages} streams; "
                f"{self.bytes_past_ram_header} bytes past the RAM header were followed",
                *(f"  {what}: {count}" for what, count in sorted(self.hits.items())),
                *(f"  error: {what}: {count}" for what, count in self.errors.most_common())]


def load_seeds() -> list[bytes]:
    """Return the corpus; an error without it."""
    seeds = [path.read_bytes() for path in sorted(SEEDS.glob("*.stream"))]
    if not seeds:
        raise SystemExit(f"no seeds in {SEEDS}")
    return seeds


@functools.cache
def known_pages() -> list[bytes]:
    """Return the different pages of the corpus: of what base images and scans may know some."""
    found: dict[bytes, None] = {}
    for data in load_seeds():
        view, at, parser, table = memoryview(data), 0, qemu_stream.QemuStream(), runs.Runs()
        while (following := parser.parse(view, at, len(data), table)) > at:
            at = following
        offsets = np.empty(len(data), np.int64)
        pages, _, _ = reference.list_pages(table.table, 0, offsets, np.empty(len(data), np.uint64))
        found |= dict.fromkeys(bytes(view[at:at + PAGE_BYTES]) for at in offsets[:pages].tolist())
    return list(found)


def mutate(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Return a seed with some damage; one in eight is whole."""
    data = bytearray(chance.choice(seeds))
    if chance.random() < 0.125:
        return bytes(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        chance.choice(MUTATIONS)(chance, data, seeds)
        if not data:
            break
    return bytes(data[:1 << 20])


def _flip(chance, data, _seeds):
    data[_place(chance, data)] ^= 1 << chance.randrange(8)


def _byte(chance, data, _seeds):
    data[_place(chance, data)] = chance.choice(INTERESTING)


def _number(chance, data, _seeds):
    at, size = _place(chance, data), chance.choice((2, 4, 8))
    value = chance.choice((0, 1, 0xff, 0xffff, chance.getrandbits(8 * size), (1 << 8 * size) - 1))
    data[at:at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big")


def _truncate(chance, data, _seeds):
    del data[_place(chance, data):]


def _cut_out(chance, data, _seeds):
    at = _place(chance, data)
    del data[at:at + chance.choice((1, 4, 8, 9, 4096, 4104, chance.randrange(1, 9000)))]


def _repeat(chance, data, _seeds):
    at, length = _place(chance, data), chance.choice((1, 8, 9, 4104, chance.randrange(1, 20000)))
    data[at:at] = data[at:at + length]


def _splice(chance, data, seeds):
    other = chance.choice(seeds)
    at, start = _place(chance, data), chance.randrange(len(other))
    data[at:at] = other[start:start + chance.choice((16, 4104, 30000))]


def _header(chance, data, _seeds):
    """Damage a record's header: where pages are, flags are all that decides."""
    at = data.find(b"\x28" if chance.random() < 0.7 else b"\x22", _place(chance, data))
    if at >= 0:
        data[at] = chance.choice((0x08, 0x20, 0x22, 0x28, 0x02, 0x10, 0x40, 0x60, 0x80, 0x29, 0x04))


MUTATIONS = (_flip, _byte, _number, _truncate, _cut_out, _repeat, _splice, _header)


def _place(chance: random.Random, data: bytearray) -> int:
    """Return a place, more often one near the beginning, where the sections are."""
    reach = len(data) if chance.random() < 0.6 else min(len(data), 600)
    return chance.randrange(max(1, reach)) if data else 0


class Log:
    """An encoder and its decoder, and the streams between them."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.loops = chance.choice((kernel, kernel, kernel, reference))
        settings = LogSettings(
            dictionary_bytes=MIN_DICTIONARY_BYTES + chance.randrange(4) * 4096, window_log=17,
            level=chance.choice(LEVELS), credit_bytes=1 << 30, under_way_bytes=1 << 30,
            most_delta_words=chance.choice((0, 16, 256, 512)), static=self._static(),
            recurring=self._recurring(), kept_for=self._kept_for())
        self.encoder = Encoder(settings, loops=self.loops)
        self.decoder = Decoder(settings.static, loops=self.loops)
        self.reader = FrameReader()
        self.take(self.encoder.hello())
        self.next_stream = 1

    def _some(self) -> list[bytes]:
        known = known_pages()
        return self.chance.sample(known, self.chance.randrange(1, len(known)))

    def _static(self) -> np.ndarray | None:
        if self.chance.random() < 0.7:
            return None
        return np.frombuffer(b"".join(self._some()), np.uint8).reshape(-1, PAGE_BYTES)

    def _recurring(self) -> Recurring | None:
        if self.chance.random() < 0.5:
            return None
        seed, theta = self.chance.getrandbits(64), self.chance.choice((1.0, 1.0, 0.3, 1e-6))
        low = {xxhash.xxh3_64_intdigest(page, seed) & 0xffffffff for page in self._some()}
        return Recurring(seed, np.array(sorted(low), np.uint32), theta)

    def _kept_for(self) -> dict[str, str]:
        return {server: self.chance.choice(SERVERS) for server in SERVERS
                if self.chance.random() < 0.3}

    def take(self, frames: list[bytes]) -> bytes:
        """Give frames to the decoder; return the bytes it delivers."""
        out = []
        for packed in frames:
            for frame in self.reader.feed(packed):
                for delivery in self.decoder.feed(frame):
                    if delivery.event is Event.DATA:
                        out.append(bytes(delivery.data))
                        self.decoder.delivered(delivery.stream, len(delivery.data))
                        self.decoder.recycle(delivery.data)
        return b"".join(out)

    def send(self, data: bytes, break_frame: bool, report: Report) -> bool:
        """Send one stream; return whether the log can go on. AssertionError: a finding."""
        stream, self.next_stream = self.next_stream, self.next_stream + 1
        chance, encoder = self.chance, self.encoder
        out = bytearray(self.take(encoder.open_stream(stream, chance.choice(SERVERS))))
        at, intact = 0, True
        size = chance.choice((len(data) + 1, 70000, 4096, 1500))
        while at <= len(data):
            count = chance.randrange(1, 2 * size)
            frames = encoder.feed(stream, data[at:at + count])
            if chance.random() < 0.1:
                frames += encoder.flush(stream, chance.random() < 0.5)
            if chance.random() < 0.05:
                encoder.set_level(chance.choice(LEVELS))
            if chance.random() < 0.05:
                encoder.set_block_bytes(stream, chance.choice((None, 4096, 65536, 3 << 20)))
            if break_frame and frames and chance.random() < 0.5:
                self._broken(frames, report)
                intact = False
                break
            out += self.take(frames)
            at += count
        if intact:
            out += self.take(encoder.end(stream))
            assert out == data, f"stream {stream}: output differs from input"
            report.equal += 1
            if chance.random() < 0.3:
                encoder.truncate(self.decoder.sequence)
        self._count(stream, report)
        return intact

    def _broken(self, frames: list[bytes], report: Report) -> None:
        """Damage one frame: the decoder has to refuse it or to go on, and nothing else."""
        which = self.chance.randrange(len(frames))
        self.take(frames[:which])
        damaged = bytearray(frames[which])
        for _ in range(self.chance.choice((1, 1, 4))):
            damaged[self.chance.randrange(len(damaged))] = self.chance.randrange(256)
        if self.chance.random() < 0.2:
            del damaged[self.chance.randrange(len(damaged)):]
        try:
            self.take([bytes(damaged)])
            report.survived += 1
        except RelayError as error:
            report.clean_errors += 1
            report.errors["".join(c for c in str(error) if not c.isdigit())[:70]] += 1

    def _count(self, stream: int, report: Report) -> None:
        parser = self.encoder.parser(stream)
        channel = parser.channel
        if channel is None:
            report.hits["not a migration stream"] += 1
            return
        report.hits.update(channel.hits)
        report.reached_pages += any(channel.hits.get(what)
                                    for what in ("page", "zero", "multifd page"))
        report.hits["given up" if not parser.position.understood else "followed to the end"] += 1
        if channel.ram_offset >= 0:
            report.bytes_past_ram_header += parser.understood_bytes - channel.ram_offset


def run(count: int, seed: int, say=lambda line: None) -> Report:
    """Send `count` streams; AssertionError is a finding, and so is an end by SIGVTALRM (a hang)."""
    faulthandler.register(signal.SIGVTALRM, chain=True)
    seeds, report = load_seeds(), Report()
    chance, log, left, baseline = random.Random(seed), None, 0, None
    for number in range(count):
        if log is None or not left:
            log, left = Log(chance), STREAMS_PER_LOG
        data = mutate(chance, seeds)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_PER_STREAM)
        try:
            intact = log.send(data, chance.random() < BROKEN_FRAME_SHARE, report)
        except CannotTruncate:
            raise AssertionError("an unbroken log can be truncated where it ends") from None
        except Exception as error:
            raise AssertionError(f"stream {number} of seed {seed}: {error!r}") from error
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        left, log = left - 1, log if intact else None
        report.streams += 1
        report.bytes_fed += len(data)
        if not report.streams % MEASURED_STREAMS:
            held = held_bytes()
            baseline = baseline or held
            assert held - baseline < GROWTH_BYTES, f"memory grew by {held - baseline} bytes"
            if not report.streams % 50000:
                say(f"{report.streams}: {held >> 20} MiB; {report.lines()[1]}")
    return report


def held_bytes() -> int:
    """Return what the process holds of memory now; its peak may be of what ran before this."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    start = time.monotonic()
    report = run(chosen.count, chosen.seed, lambda line: print(line, flush=True))
    print(*report.lines(), f"{time.monotonic() - start:.0f} s", sep="\n")


if __name__ == "__main__":
    main()

"""Migration streams made by hand, as QEMU would write them, and a log to send them through."""
import dataclasses
import random
import struct

from nova_batch_migrate.relay import kernel
from nova_batch_migrate.relay.decoder import Decoder, Event
from nova_batch_migrate.relay.encoder import Encoder
from nova_batch_migrate.relay.settings import MIN_DICTIONARY_BYTES, LogSettings
from nova_batch_migrate.relay.wire import FrameReader

PAGE = 4096
HEAD = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 8) + b"pc-i440x"
BLOCKS = ((b"pc.ram", 1 << 20), (b"pc.bios", 1 << 18))
EOS = struct.pack(">Q", 0x10)
FOOTER = b"\x7e" + struct.pack(">I", 2)
SWITCHOVER_START = b"\x08" + struct.pack(">HH", 11, 0)
DEVICE_STATE = b"\x04" + struct.pack(">I", 0) + b"\x05timer" + bytes(8) + b"state" * 50 + b"\x00"


def page(seed: int) -> bytes:
    """Return page content that is the same for the same seed, and compresses a little."""
    return random.Random(seed).randbytes(PAGE // 4) * 4


def noise(seed: int) -> bytes:
    """Return page content that does not compress."""
    return random.Random(seed).randbytes(PAGE)


def record(address: int, content: bytes | None, block: bytes | None = None) -> bytes:
    """Return a page record (None: of a zero page), with the block's name if one is given."""
    flags = 0x08 if content is not None else 0x02
    name = b"" if block is None else bytes([len(block)]) + block
    header = struct.pack(">Q", address | flags | (0x20 if block is None else 0))
    return header + name + (b"\0" if content is None else content)


def start(blocks=BLOCKS) -> bytes:
    """Return the start section of RAM with the list of blocks."""
    sizes = b"".join(bytes([len(name)]) + name + struct.pack(">Q", size) for name, size in blocks)
    total = sum(size for _, size in blocks)
    return (b"\x01" + struct.pack(">I", 2) + b"\x03ram" + struct.pack(">II", 0, 4)
            + struct.pack(">Q", total | 0x04) + sizes + EOS + FOOTER)


def part(*records: bytes, last: bool = False) -> bytes:
    """Return a section of RAM records."""
    kind = b"\x03" if last else b"\x02"
    return kind + struct.pack(">I", 2) + b"".join(records) + EOS + FOOTER


def pages(contents, first_address: int = 0, block: bytes = b"pc.ram") -> list[bytes]:
    """Return records of consecutive pages, the first with the block's name; None: a zero page."""
    return [record(first_address + i * PAGE, content, block if i == 0 else None)
            for i, content in enumerate(contents)]


def stream(*parts: bytes) -> bytes:
    """Return a whole main connection's stream around sections of records."""
    return HEAD + start() + b"".join(parts) + DEVICE_STATE


def guest(contents) -> bytes:
    """Return the stream of a guest with these pages, all sent in one part."""
    return stream(part(*pages(contents)), SWITCHOVER_START, part(last=True))


@dataclasses.dataclass
class Log:
    """An encoder, its decoder, and what came out of each stream."""

    encoder: Encoder
    decoder: Decoder
    reader: FrameReader = dataclasses.field(default_factory=FrameReader)
    out: dict = dataclasses.field(default_factory=dict)
    events: list = dataclasses.field(default_factory=list)

    def deliver(self, frames) -> None:
        """Give frames to the decoder and take what it delivers."""
        for packed in frames:
            for frame in self.reader.feed(packed):
                for delivery in self.decoder.feed(frame):
                    self.events.append((delivery.stream, delivery.event))
                    if delivery.event is Event.DATA:
                        self.out.setdefault(delivery.stream, bytearray()).extend(delivery.data)
                        self.decoder.delivered(delivery.stream, len(delivery.data))
                        self.decoder.recycle(delivery.data)

    def credit(self) -> None:
        """Carry all credit back."""
        for packed in self.decoder.credits(everything=True):
            for frame in FrameReader().feed(packed):
                self.encoder.on_frame(frame)

    def send(self, number: int, data: bytes, server: str = "", chunk: int = 1 << 18) -> bytes:
        """Send a whole stream; return what came out."""
        self.deliver(self.encoder.open_stream(number, server or f"server {number}"))
        for at in range(0, len(data), chunk):
            self.deliver(self.encoder.feed(number, data[at:at + chunk]))
        self.deliver(self.encoder.end(number))
        self.credit()
        return bytes(self.out.get(number, b""))


def log(*, loops=kernel, **settings) -> Log:
    """Return a log that has begun, with the smallest dictionary unless told otherwise."""
    chosen = LogSettings(**({"dictionary_bytes": MIN_DICTIONARY_BYTES, "window_log": 20}
                            | settings))
    made = Log(Encoder(chosen, loops=loops), Decoder(chosen.static, loops=loops))
    made.deliver(made.encoder.hello())
    return made

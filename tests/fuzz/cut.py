"""Cuts captured migration streams down to seeds: all sections, a few pages of each.

    python -m tests.fuzz.cut CAPTURE SEED
"""
import pathlib
import struct
import sys

from nova_batch_migrate.relay import multifd_channel, qemu_stream, runs
from nova_batch_migrate.relay.layout import SIZES, Run

PAGES_PER_SECTION = 2
ZEROS_PER_SECTION = 5
SECTIONS = 3            # of records, from the beginning and from the end
DEVICE_BYTES = 512     # of device state, from the beginning and from the end
PACKETS = 4
PAGES_PER_PACKET = 2


def cut_main(capture: bytes) -> bytes:
    """Return a main connection's stream with few pages in few sections."""
    table = runs.Runs()
    parser, at = qemu_stream.QemuStream(), 0
    while at < len(capture):
        following = parser.parse(memoryview(capture), at, len(capture), table)
        if following == at:
            break
        at = following
    pieces, section, taken = [[]], 0, {Run.PAGES: 0, Run.ZERO: 0}
    most = {Run.PAGES: PAGES_PER_SECTION, Run.ZERO: ZEROS_PER_SECTION}
    end_of_ram = parser.position.ram_end_offset
    for kind, offset, count, _header, _block in table.table.tolist():
        if kind in taken:
            count = min(count, max(0, most[kind] - taken[kind]))
            taken[kind] += count
        piece = capture[offset:offset + count * SIZES[kind]]
        before = max(0, end_of_ram - offset) if end_of_ram >= 0 else len(piece)
        if kind == Run.VERBATIM and len(piece) > before + 2 * DEVICE_BYTES:
            piece = piece[:before + DEVICE_BYTES] + piece[-DEVICE_BYTES:]
        pieces[section].append(piece)
        if kind == Run.VERBATIM and offset > end_of_ram >= 0:
            continue
        # a footer ends a section of records; it stands in a verbatim run
        if kind == Run.VERBATIM and b"\x7e" in piece:
            section += 1
            pieces.append([])
            taken = dict.fromkeys(taken, 0)
    kept = pieces if len(pieces) <= 2 * SECTIONS else pieces[:SECTIONS] + pieces[-SECTIONS:]
    return b"".join(piece for group in kept for piece in group)


def cut_multifd(capture: bytes) -> bytes:
    """Return a multifd connection's stream with few packets of few pages."""
    at = multifd_channel.HELLO_BYTES
    kept = [capture[:at]]
    for _ in range(PACKETS):
        packet = bytearray(capture[at:at + multifd_channel.PACKET_BYTES])
        if len(packet) < multifd_channel.PACKET_BYTES:
            break
        normal, = struct.unpack_from(">I", packet, 16)
        at += multifd_channel.PACKET_BYTES
        offsets = capture[at:at + 8 * multifd_channel.PACKET_PAGES]
        at += len(offsets)
        pages = min(normal, PAGES_PER_PACKET)
        struct.pack_into(">I", packet, 16, pages)
        kept += [bytes(packet), offsets, capture[at:at + pages * 4096]]
        at += normal * 4096
    return b"".join(kept)


def main() -> None:
    source, target = map(pathlib.Path, sys.argv[1:])
    capture = source.read_bytes()
    cut = cut_multifd if capture.startswith(multifd_channel.MAGIC) else cut_main
    target.write_bytes(cut(capture))


if __name__ == "__main__":
    main()

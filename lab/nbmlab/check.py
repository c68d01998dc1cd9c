"""Tells from outside whether guests live, were not reset, and have their memory whole.

Used by lab/guests, lab/demo and the lab tests: `before = snapshot(ids)`, move the guests,
`verify(before)`. Reads consoles; only flip_byte, made to prove that the check can fail, touches a
guest.
"""
import dataclasses
import os
import pathlib
import re
import struct
import time
from collections.abc import Mapping, Sequence

from nbmlab import host, layout, shell

PAGE_BYTES = 4096
PAGE_MAGIC = struct.pack("<Q", 0x6e626d2d70616765)   # lab/guest/guest.h
HEADER_BYTES = 32
# A pass over the buffer takes up to 8 s of the guest's time (families.py), and the one that counts
# begins after the one under way.
VERIFY_SECONDS = 240.0

_LINE = re.compile(
    rb"nbm tick=(\d+) boot=([0-9a-f-]{36}) up=([\d.]+) wrote=(\d+) passes=(\d+) since=(\d+) "
    rb"bad=(\d+)\r?\n")
_TALK = re.compile(
    rb"nbm talk=([0-9a-f]+) sent=(\d+) got=(\d+) bad=(\d+) sessions=(\d+) gap=([\d.]+)\r?\n")


@dataclasses.dataclass(frozen=True)
class Tick:
    """One line of a guest's console; `since` is the tick at which its last whole pass began."""

    tick: int
    boot_id: str
    up_seconds: float
    wrote_pages: int
    passes: int
    since: int
    bad: int


@dataclasses.dataclass(frozen=True)
class Talk:
    """How a guest's TCP session is (lab/guest/talk.c); `bad` records were not what was due."""

    session: str
    sent: int
    got: int
    bad: int
    sessions: int
    gap_seconds: float


@dataclasses.dataclass(frozen=True)
class GuestVerdict:
    """What became of a guest between a snapshot and now."""

    alive: bool                        # its ticks went on, in the same boot
    memory_intact: bool                # a whole pass that began after the move found nothing bad
    detail: str


def ticks(server_id: str) -> list[Tick]:
    """Return what the guest told on its console since it is on its present host.

    The destination truncates the console at each migration: what is from before has to be kept.
    """
    return parse(console(server_id))


def console(server_id: str) -> bytes:
    """Return the text of a guest's console; empty while there is none."""
    try:
        return (layout.INSTANCES_BACKING / server_id / "console.log").read_bytes()
    except FileNotFoundError:
        return b""


def parse(text: bytes) -> list[Tick]:
    """Return the ticks of a console's text."""
    return [Tick(int(found[1]), found[2].decode(), float(found[3]), *map(int, found.groups()[3:]))
            for found in _LINE.finditer(text)]


def last_tick(server_id: str) -> Tick | None:
    """Return the newest line of a guest, None while it has told nothing."""
    told = ticks(server_id)
    return told[-1] if told else None


def last_talk(server_id: str) -> Talk | None:
    """Return how a guest's session is; None while it has told nothing on its present host."""
    found = list(_TALK.finditer(console(server_id)))
    if not found:
        return None
    session, *counts, gap = found[-1].groups()
    return Talk(session.decode(), *map(int, counts), float(gap))


def snapshot(server_ids: Sequence[str]) -> dict[str, Tick]:
    """Return the present tick of each guest; a mute one is an error: it could not be compared."""
    taken = {}
    for server_id in server_ids:
        tick = last_tick(server_id)
        if tick is None:
            raise shell.LabError(f"guest {server_id} has told nothing on its console: wait until "
                                 "it has booted, then take the snapshot")
        taken[server_id] = tick
    return taken


def verify(before: Mapping[str, Tick], deadline_seconds: float = VERIFY_SECONDS,
           moved: Mapping[str, Tick] | None = None) -> dict[str, GuestVerdict]:
    """Judge all guests of a snapshot by a whole pass of verification that begins after now.

    Call it when the moves are over. A guest is judged as soon as it can be; at the deadline the
    others are judged by what they have told. ``moved``: ticks of guests whose moves were over then
    already; a pass after that will do.
    """
    now = {server_id: last_tick(server_id) for server_id in before} | dict(moved or {})
    end = time.monotonic() + deadline_seconds
    verdicts: dict[str, GuestVerdict] = {}
    while True:
        late = time.monotonic() > end
        for server_id, old in before.items():
            if server_id not in verdicts:
                verdict = judge(old, now[server_id], last_tick(server_id), late)
                if verdict:
                    verdicts[server_id] = verdict
        if len(verdicts) == len(before):
            return verdicts
        time.sleep(0.5)


def judge(before: Tick, moved: Tick | None, newest: Tick | None, late: bool) -> GuestVerdict | None:
    """Return the verdict on one guest, None while it is too early for one.

    `before` is of the snapshot, `moved` of when the move was over (None: the destination's console
    was still empty), `newest` of now. `late`: no more waiting.
    """
    if newest and newest.boot_id != before.boot_id:
        return GuestVerdict(False, False, f"it was reset: boot {before.boot_id} is now "
                                          f"{newest.boot_id}")
    if newest and newest.bad:
        return GuestVerdict(newest.tick > before.tick, False,
                            f"{newest.bad} bad pages in {newest.passes} passes")
    # A pass that began between the line of `moved` and the next one may have begun before the
    # move's end.
    reference = moved or before
    if newest and newest.tick > reference.tick and newest.since > reference.tick + 1:
        return GuestVerdict(True, True, f"tick {before.tick} -> {newest.tick}, pass "
                                        f"{newest.passes} began at {newest.since}, 0 bad pages")
    if not late:
        return None
    if newest is None or newest.tick <= reference.tick:
        return GuestVerdict(False, False, f"no tick after {reference.tick}: it stands still")
    return GuestVerdict(True, False, f"no whole pass of verification since tick {reference.tick}")


def flip_byte(server_id: str) -> int:
    """Change one byte of one page of a guest's buffer from outside and return its address in QEMU.

    Finds a page by its magic in the memory of the guest's QEMU and skips the header, so that only
    the checksum can tell.
    """
    pid = qemu_pid(server_id)
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for begin, end in _writable_maps(pid):
            for start in range(begin, end, 1 << 22):
                try:
                    block = os.pread(memory.fileno(), min(1 << 22, end - start), start)
                except OSError:
                    continue           # a guard page or a device's memory
                for offset in range(0, len(block) - PAGE_BYTES + 1, PAGE_BYTES):
                    if block[offset:offset + 8] == PAGE_MAGIC and any(
                            block[offset + HEADER_BYTES:offset + PAGE_BYTES]):
                        address = start + offset + HEADER_BYTES + 1000
                        byte = os.pread(memory.fileno(), 1, address)[0]
                        os.pwrite(memory.fileno(), bytes([byte ^ 0x55]), address)
                        return address
    raise shell.LabError(f"no page of the guest program in the memory of {server_id}")


def qemu_pid(server_id: str) -> int:
    """Return the pid of the QEMU that runs a guest, wherever it is."""
    for each in layout.load_options().host_list:
        for pid in host.processes(each):
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in words[0] and server_id.encode() in words:
                return pid
    raise shell.LabError(f"no QEMU of this lab runs {server_id}")


def _writable_maps(pid: int) -> list[tuple[int, int]]:
    """Return the anonymous writable ranges of a process, the largest first: the guest's RAM."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, flags, _, _, inode = line.split()[:5]
        if flags.startswith("rw") and inode == "0":
            begin, end = (int(word, 16) for word in span.split("-"))
            found.append((begin, end))
    return sorted(found, key=lambda span: span[0] - span[1])

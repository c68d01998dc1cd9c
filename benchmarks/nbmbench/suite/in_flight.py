"""Bytes between the write of a source that never stops and the read of the destination's QEMU.

On a link of 300 Mbit/s, in rounds behind the first, of pages that nothing can make smaller: with
two relays, and without. What is under way is how late QEMU learns how fast its bytes leave; 10 ms
of the link are 375 KB. Of it the send buffer of QEMU's own socket and the link's queue are told
apart. The source is played: it writes pages of new random bytes, round after round; who reads
bears QEMU's name, for the relay to look at. TCP is cubic, as between the lab's hosts.
"""
import fcntl
import json
import os
import pathlib
import socket
import struct
import subprocess
import termios
import threading
import time
import uuid

import numpy as np
from nbmlab import shell

from nbmbench.contract import Goal, Settings
from nbmbench.relays import Relays
from nbmbench.rig import Rig
from nbmbench.rig.link import ADDRESSES, DESTINATION, SOURCE

NEEDS = "lab"
LINK_BYTES_PER_SECOND = 300e6 / 8
GOALS = {"relay_bytes_median": Goal("<=", LINK_BYTES_PER_SECOND * 0.010),
         "relay_vs_plain": Goal("<=", 1.0)}
NATIVE = pathlib.Path(__file__).resolve().parents[1] / "native"
PLAIN, RELAY = "plain", "relay"
REPETITIONS = 3
PAGE_BYTES, PAGES, PAGES_AT_ONCE = 4096, 25_000, 32
#: The first round, and one more in which speeds settle, are not looked at.
FIRST_ROUND = 2
SECONDS, QUICK_SECONDS, LOOK_SECONDS = 15.0, 8.0, 0.01
FIRST_PORT = 49162
_BLOCK, _CONTINUE, _PAGE, _END = b"\x06pc.ram", 0x20, 0x08, 0x10


def run(settings: Settings) -> list[dict]:
    """Send with and without relays by turns; one case each."""
    cases: list[dict] = []
    reader = settings.scratch / "qemu-system-x86_64"
    shell.run("gcc", "-O2", "-Wall", "-o", reader, NATIVE / "take.c")
    with Rig(settings.scratch / "rig") as rig:
        rig.link.use_cubic()
        rig.link.cap(LINK_BYTES_PER_SECOND)
        for repetition in range(1 if settings.quick else REPETITIONS):
            for way in (RELAY, PLAIN):
                port = FIRST_PORT + len(cases)
                seconds = QUICK_SECONDS if settings.quick else SECONDS
                server = str(uuid.uuid4())
                if way == RELAY:
                    with Relays(rig, settings.scratch / f"relays-{repetition}") as relays:
                        relays.open([(server, "project")],
                                    link_bytes_per_second=LINK_BYTES_PER_SECOND)
                        case = _sent(rig, reader, server, port, seconds)
                        case["cpu_seconds"] = {side: round(relays.cpu_seconds(side), 2)
                                               for side in (SOURCE, DESTINATION)}
                else:
                    case = _sent(rig, reader, server, port, seconds)
                cases.append({"way": way, "repetition": repetition} | case)
                shell.say(f"{way}: {case['bytes_median'] / 1e6:.2f} MB under way")
                settings.keep(cases)
    return cases


def _sent(rig: Rig, reader: pathlib.Path, server: str, port: int, seconds: float) -> dict:
    """Play a source to a reader for so long and return what was under way at each look."""
    taker = rig.run(DESTINATION, reader, "-uuid", server, ADDRESSES[DESTINATION], port,
                    stdout=subprocess.PIPE, text=True)
    taker.stdout.readline()
    connection = rig.link.socket(SOURCE)
    connection.connect((ADDRESSES[DESTINATION], port))
    read_before = _read_bytes(taker.pid)
    source = _Source(connection)
    looks: list[tuple[int, int, int]] = []
    began = looked_at_link = time.monotonic()
    queued = 0
    while (now := time.monotonic()) - began < seconds:
        time.sleep(LOOK_SECONDS)
        if source.round < FIRST_ROUND:
            continue
        if now - looked_at_link > 20 * LOOK_SECONDS:
            # asked by a program: not at each look
            looked_at_link, queued = now, _queued_bytes(rig)
        written, unsent = source.written_bytes, _unsent_bytes(connection)
        looks.append((written - (_read_bytes(taker.pid) - read_before), unsent, queued))
    written = source.written_bytes
    source.end()
    taker.kill()
    taker.wait()
    if not looks:
        raise RuntimeError(f"no second round within {seconds} s: {written} bytes were written")
    under_way, unsent, queued = zip(*looks, strict=True)
    return {"looks": len(looks), "written_bytes": written,
            "bytes_median": float(np.median(under_way)),
            "bytes_p90": float(np.percentile(under_way, 90)), "bytes_most": max(under_way),
            "send_buffer_bytes_median": float(np.median(unsent)),
            "link_queue_bytes_median": float(np.median([each for each in queued if each] or [0]))}


class _Source:
    """A guest's stream that never ends, written as fast as it is taken."""

    def __init__(self, connection: socket.socket):
        self._connection, self._ended = connection, False
        self.written_bytes = self.round = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write no more."""
        self._ended = True
        # wakes who waits for room
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            self._write(_head())
            while not self._ended:
                for first in range(0, PAGES, PAGES_AT_ONCE):
                    self._write(_section(first, min(PAGES_AT_ONCE, PAGES - first)))
                self.round += 1
        except OSError:
            if not self._ended:
                raise

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            written = self._connection.send(left)
            self.written_bytes += written
            left = left[written:]


def _head() -> bytes:
    """Return the begin of a stream: a guest with one block of memory."""
    size = PAGES * PAGE_BYTES
    return (b"QEVM" + struct.pack(">IBIB3sIIQ", 3, 1, 2, 3, b"ram", 0, 4, size | 4)
            + _BLOCK + struct.pack(">QQBI", size, _END, 0x7E, 2))


def _section(first_page: int, pages: int) -> bytes:
    """Return a section of pages of random bytes, as QEMU writes it."""
    records = []
    for page in range(first_page, first_page + pages):
        flags = _PAGE | (_CONTINUE if records else 0)
        records.append(struct.pack(">Q", page * PAGE_BYTES | flags)
                       + (b"" if records else _BLOCK) + os.urandom(PAGE_BYTES))
    return b"\x02" + struct.pack(">I", 2) + b"".join(records) + struct.pack(">QBI", _END, 0x7E, 2)


def _read_bytes(pid: int) -> int:
    """Return what a process has read so far."""
    for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/io tells nothing of what was read")


def _unsent_bytes(connection: socket.socket) -> int:
    """Return what the kernel holds of a connection's writes."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def _queued_bytes(rig: Rig) -> int:
    """Return what waits at the source's end of the link."""
    told = json.loads(shell.run("tc", "-n", rig.link.names[SOURCE], "-s", "-j", "qdisc", "show",
                                "dev", "eth0"))
    return max(each.get("backlog", 0) for each in told)


def measured(cases) -> dict:
    """Return medians over the runs, and the worst look of all."""
    figures: dict[str, float] = {}
    for way in (RELAY, PLAIN):
        if told := [case for case in cases if case["way"] == way]:
            for name in ("bytes_median", "bytes_p90", "send_buffer_bytes_median",
                         "link_queue_bytes_median"):
                figures[f"{way}_{name}"] = float(np.median([case[name] for case in told]))
            figures[f"{way}_bytes_most"] = max(case["bytes_most"] for case in told)
            figures[f"{way}_seconds"] = figures[f"{way}_bytes_median"] / LINK_BYTES_PER_SECOND
    if RELAY in {case["way"] for case in cases} and PLAIN in {case["way"] for case in cases}:
        figures["relay_vs_plain"] = figures["relay_bytes_median"] / figures["plain_bytes_median"]
    return figures

"""Real QEMUs for the tests, and a guest for them of which everything is known."""

import base64
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid

import fixtures
import numpy

from nova_batch_migrate.agent import memory

MIB = 1 << 20
_LAB = os.path.join(os.environ.get("NBM_LAB", "/var/lib/nbm-lab"),
                    "cache/qemu/usr/bin/qemu-system-x86_64")
#: The QEMU 10 of the lab where it is installed, else the machine's.
BINARY = _LAB if os.path.exists(_LAB) else shutil.which("qemu-system-x86_64")
#: Its firmware is the machine's.
FIRMWARE = ["-L", "/usr/share/qemu", "-L", "/usr/share/seabios"] if BINARY == _LAB else []
#: KSM is another test's, and would take these guests, too.
BASE = [*FIRMWARE, "-S", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
        "-machine", "mem-merge=off"]

#: Runs it as if it were the machine's, with the modules of its own build.
EMULATOR = "#!/bin/sh\nexec " + (
    f"""unshare --mount sh -e -c '
    for path in bin/qemu-system-x86_64 share/qemu lib/x86_64-linux-gnu/qemu; do
        mount --bind "$0/$path" "/usr/$path"
    done
    exec /usr/bin/qemu-system-x86_64 "$@"' {_LAB.partition("/bin/")[0]} "$@"
""" if BINARY == _LAB else f'{BINARY} "$@"\n')

#: guest.S, assembled as it says.
_CODE = base64.b64decode(
    "+jHAjtiO0LwAfOSSDALmkmYPARZIfQ8gwAwBDyLAuwgAjuMk/g8iwDHbjuP7Zr8AAAABZosO7n1mhcl0EGRnZokP"
    "ZoHHABAAAGZJdfBmiw7yfWaFyQ+EjwBmvwAAIABmuAAQAABkZ2aJB2ZAZoPHBGZJdfG4ArG5AhC69Box9s0acmW4"
    "DLG/BAC5BwDNGrgKsb8QAM0ag+H8ic2NVhKwA+6NVg4xwO+NVghmuAABAABm741WErAH7ma/AAAQAGRnZscHAAAg"
    "AGah8n1mweACZGdmiUcIZGdmx4cACAAAAAABAI1WEDHA72aLHvJ9ZsHjDGaBwwAAAAFmid9mMclmoWwE9GY7BmwE"
    "dPhmixb6fWaF0nTqZGdm/0cIZoHHABAAAGZKZkFmOw72fXLjZonfZjHJ69uNtAAAAAAAAAAAAAD//wAAAJLPAA8A"
    "OH0=")
#: Where the program's numbers are in it, and the first page that it fills.
_NUMBERS, FIRST_PAGE = 494, 16 * MIB // 4096
TICKS_PER_SECOND = 18.2065


def boot_sector(filled, ballooned=0, written=1, per_tick=0):
    """Return guest.S with its numbers: it fills pages, gives some back, writes others for ever."""
    numbers = struct.pack("<4I", filled, ballooned, written, per_tick)
    return _CODE.ljust(_NUMBERS, b"\0") + numbers + b"\x55\xaa"


def disk(directory, program):
    """Return the path of a new disk image that the firmware boots."""
    path = os.path.join(directory, "boot")
    pathlib.Path(path).write_bytes(program.ljust(MIB, b"\0"))
    return path


def present_pages(ram):
    """Return how many pages of an open GuestMemory are present."""
    return sum(int(numpy.count_nonzero(ram.presence(part)[0])) for part in ram.slices())


def wait_for(is_so, seconds=180):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"still not so after {seconds} s")
        time.sleep(0.05)


def written(ram, pages):
    """Return how often the program of a guest has written to a page; it has so many in turn.

    By the pages themselves, in which it counts: where its QEMU was held up for a while, its BIOS
    counts more ticks behind that than the program sees.
    """
    with open(f"/proc/{ram._pid}/mem", "rb", buffering=0) as mapped:
        def times(page):
            address = ram.page_address(FIRST_PAGE + page)
            return struct.unpack("<I", os.pread(mapped.fileno(), 4, address + 8))[0]
        rounds, low, high = times(0), 0, pages
        # all before `low` have been written to in this round, none from `high` on
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if times(middle) >= rounds else (low, middle)
        return (rounds - 1) * pages + high if rounds else 0


def has_filled(ram, filled):
    """Tell whether the program of a guest with one block of RAM has filled its pages."""
    part, buffer = ram.stretch(FIRST_PAGE + filled - 1, 1), memory.Buffer()
    present, _ = ram.presence(part)
    ram.read(part, present, buffer)
    return bool(present[0]) and bytes(buffer.view[:4]) == b"\1\0\0\0"


class Pace:
    """How much a guest writes, which has so many pages in turn, looked at all the time.

    What a busy machine takes from it comes in pieces: it writes in bursts.
    """

    def __init__(self, ram, pages):
        self._ram, self._pages = ram, pages
        #: When a look began, when it was over, the pages that were written by then.
        self._looks: list[tuple[float, float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._over.set()
        self._thread.join()

    def _look(self):
        while True:
            is_over, before = self._over.is_set(), time.monotonic()
            found = written(self._ram, self._pages)
            self._looks.append((before, time.monotonic(), found))
            if is_over:
                return
            self._over.wait(0.01)

    def written(self, seconds):
        """Return the least and the most pages that were written in any stretch of that length."""
        before, after, pages = (numpy.array(each) for each in zip(*self._looks, strict=True))
        last = len(pages) - 1
        # a stretch that begins between two looks
        most = pages[numpy.searchsorted(before, before[1:] + seconds).clip(0, last)] - pages[:-1]
        least = pages[numpy.searchsorted(after, after[:-1] + seconds, "right") - 1] - pages[1:]
        whole = after[:-1] + seconds <= after[-1]
        if not whole.any():
            raise ValueError(f"it was not looked at for {seconds} s")
        return max(0, int(least[whole].min())), int(most.max())


class Qemu(fixtures.Fixture):
    """A QEMU that has not begun; ``boot`` lets the firmware write to RAM, and pauses again.

    With a ``program`` (see `boot_sector`) that is what it boots.
    """

    def __init__(self, arguments, program=None):
        self.id = str(uuid.uuid4())
        self._arguments = list(arguments)
        self._program = program

    def _setUp(self):
        self.directory = self.useFixture(fixtures.TempDir()).path
        monitor = os.path.join(self.directory, "qmp")
        if self._program:
            self._arguments += ["-drive", f"file={disk(self.directory, self._program)},format=raw"]
        self._process = subprocess.Popen(
            [BINARY, *BASE, "-uuid", self.id, "-qmp", f"unix:{monitor},server=on,wait=off",
             *(argument.format(dir=self.directory) for argument in self._arguments)],
            stderr=subprocess.PIPE)
        self.addCleanup(self.end)
        self.pid = self._process.pid
        self.pid_file = os.path.join(self.directory, "pid")
        pathlib.Path(self.pid_file).write_text(f"{self.pid}\n", encoding="ascii")
        self._socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self._socket.close)

        def connected() -> bool:
            try:
                self._socket.connect(monitor)
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(self._process.stderr.read().decode()) from None
                return False
            return True
        wait_for(connected)
        self._lines = self._socket.makefile("r")
        self.addCleanup(self._lines.close)
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        """Run a monitor command and return what it answers."""
        self._socket.sendall(json.dumps(
            {"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise RuntimeError("QEMU ended")

    def boot(self, ram):
        """Run until something is in RAM, and stand still."""
        self.execute("cont")
        wait_for(lambda: present_pages(ram) >= 32)
        self.execute("stop")

    def run(self, ram, filled):
        """Run until the program has filled its pages, and go on."""
        self.execute("cont")
        wait_for(lambda: has_filled(ram, filled))

    def wanted(self, *sizes_mib):
        """Return this guest as scan.measure wants it."""
        return {"id": self.id, "pid_file": self.pid_file,
                "blocks_bytes": [size * MIB for size in sizes_mib]}

    def end(self):
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()

    def shared_bytes(self):
        """Return what the shared memory that it has mapped occupies."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return [line for line in status.splitlines() if line.startswith("RssShmem")]

"""Real processes whose memory the tests scan: they play QEMU, and do what a guest would."""

import os
import pathlib
import random
import subprocess
import sys
import uuid

import fixtures

PAGE = 4096
#: In place of a seed: what a balloon does, bring the page to swap, let KSM merge it.
HOLE, SWAP, MERGE = -1, -2, -3
#: Added to a seed, once or more: a page that is like that of the seed but for eight bytes.
LIKE = 1 << 32
#: Sizes that no other mapping of a Python process has.
PAGES = 2 * 512 + 3

_PROGRAM = """
import ctypes, mmap, os, random, sys
kind, pages = sys.argv[1], int(sys.argv[2])
size = pages * 4096
if kind.startswith("/"):
    fd = os.open(kind, os.O_RDWR)
    ram = mmap.mmap(fd, size, mmap.MAP_SHARED)
elif kind in ("memfd", "hugetlb"):
    fd = os.memfd_create("ram", os.MFD_HUGETLB if kind == "hugetlb" else 0)
    os.ftruncate(fd, size)
    ram = mmap.mmap(fd, size, mmap.MAP_SHARED)
else:
    fd = -1
    ram = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
# as QEMU does; it also keeps the mapping apart from its neighbours
ram.madvise(mmap.MADV_DONTFORK)
if kind != "hugetlb":
    ram.madvise(mmap.MADV_NOHUGEPAGE)
if sys.argv[5:]:
    # its files in /proc are then that user's, as those of QEMU are
    os.setuid(int(sys.argv[5]))
    ctypes.CDLL(None).prctl(4, 1)
print(fd, flush=True)
for line in sys.stdin:
    page, seed = map(int, line.split())
    advice = {-1: mmap.MADV_DONTNEED if fd < 0 else mmap.MADV_REMOVE, -2: 21, -3: 12}.get(seed)
    if advice is not None:
        # a balloon, MADV_PAGEOUT, MADV_MERGEABLE
        ram.madvise(advice, page * 4096, 4096)
        print("advised", flush=True)
        continue
    content = random.Random(seed % (1 << 32)).randbytes(4096) if seed else bytes(4096)
    content = (seed >> 32).to_bytes(8, "big") + content[8:] if seed >> 32 else content
    ram[page * 4096:(page + 1) * 4096] = content
    print("written", flush=True)
"""


def content(seed: int) -> bytes:
    """Return what a page written with this seed holds; seed 0 is a page of zeros."""
    return random.Random(seed).randbytes(PAGE) if seed else bytes(PAGE)


class Guest(fixtures.Fixture):
    """A process with ``pages`` pages of RAM, none present until written.

    ``kind``: anonymous, memfd, hugetlb, or the path of a file of shared memory; ``user``: whose
    process it is, if not this one's.
    """

    def __init__(self, kind: str = "anonymous", pages: int = PAGES, user: int | None = None):
        self.kind, self.pages, self.user = kind, pages, user
        self.id = str(uuid.uuid4())

    def _setUp(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self.kind, str(self.pages), "-uuid", self.id,
             *([] if self.user is None else [str(self.user)])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end)
        self.fd = int(self._process.stdout.readline())
        self.pid = self._process.pid
        directory = self.useFixture(fixtures.TempDir()).path
        self.pid_file = os.path.join(directory, "guest.pid")
        pathlib.Path(self.pid_file).write_text(f"{self.pid}\n", encoding="ascii")

    def write(self, seeds: dict[int, int]) -> None:
        """Write pages: {page: seed of its content}."""
        for page, seed in seeds.items():
            self._process.stdin.write(f"{page} {seed}\n")
            self._process.stdin.flush()
            self._process.stdout.readline()

    def wanted(self) -> dict:
        """Return this guest as scan.measure wants it."""
        return {"id": self.id, "pid_file": self.pid_file, "blocks_bytes": [self.pages * PAGE]}

    def file_bytes(self) -> int:
        """Return what the memfd really occupies."""
        return os.stat(f"/proc/{self.pid}/fd/{self.fd}").st_blocks * 512

    def end(self) -> None:
        """Kill the process, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

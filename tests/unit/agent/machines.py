"""What tests need of the machine beside processes: switched on for a test, off again behind it.

Each is refused with a reason where the machine does not allow it, or where it is in use already.
Tests of other processes that need the same wait for their turn.
"""

import ctypes
import fcntl
import os
import pathlib
import subprocess
import time

import fixtures
import numpy

MIB = 1 << 20
_PAGE = 4096
_KSM = pathlib.Path("/sys/kernel/mm/ksm")
_HUGE_PAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
_MEMINFO = pathlib.Path("/proc/meminfo")
_PROCESS_MADVISE, _MADV_PAGEOUT = 440, 21

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The machine is not to be changed so; the text says why."""


def set_up(test, wanted: fixtures.Fixture) -> fixtures.Fixture:
    """Set up one of the fixtures below for a test; skip the test where the machine refuses."""
    try:
        return test.useFixture(wanted)
    except Refused as error:
        test.skipTest(str(error))
    except fixtures.MultipleExceptions as errors:
        refused = [each[1] for each in errors.args if isinstance(each[1], Refused)]
        if not refused:
            raise
        test.skipTest(str(refused[0]))


def _write(path: pathlib.Path, value) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error


class _Turn(fixtures.Fixture):
    """Nobody else who asks for the thing of that name has it; the kernel ends it with a process."""

    def __init__(self, name):
        self._name = name

    def _setUp(self):
        # not where this test has its temporary files: it must be one place for all
        path = f"/tmp/nova-batch-migrate-tests-{self._name}.lock"
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{path} cannot be opened: {error.strerror}") from error
        self.addCleanup(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)


class HugePages(fixtures.Fixture):
    """At least so many huge pages of 2 MiB that are free."""

    def __init__(self, pages):
        self._pages = pages

    def _setUp(self):
        self.useFixture(_Turn("huge-pages"))
        if self.free() >= self._pages:
            return
        before = int(_HUGE_PAGES.read_text())
        self.addCleanup(_write, _HUGE_PAGES, before)
        _write(_HUGE_PAGES, before + self._pages)
        if self.free() < self._pages:
            raise Refused(f"the kernel has no {self._pages} huge pages")

    def free(self):
        """Return how many are free."""
        return next(int(line.split()[1]) for line in _MEMINFO.read_text().splitlines()
                    if line.startswith("HugePages_Free"))


class Swap(fixtures.Fixture):
    """A swap file, and a way to bring pages of a process into it."""

    def __init__(self, size_mib=64):
        self._size_mib = size_mib

    def _setUp(self):
        # who swaps off brings back what others have in that file
        self.useFixture(_Turn("swap"))
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, "swap")
        pathlib.Path(path).touch(mode=0o600)
        pathlib.Path(path).write_bytes(bytes(self._size_mib * MIB))
        made = subprocess.run(["/sbin/mkswap", "-q", path], capture_output=True, text=True,
                              check=False)
        if made.returncode:
            raise Refused(f"no swap file: {made.stderr}")
        if _libc.swapon(path.encode(), 0):
            raise Refused(f"no swap here: {os.strerror(ctypes.get_errno())}")
        self.addCleanup(_libc.swapoff, path.encode())

    def push_out(self, pid, address, size, share=0.97, seconds=120):
        """Bring a range of a process's memory to swap, nearly all of it.

        A page that another core has not handed to the kernel's lists yet, or that is being
        written, stays at first.
        """
        end = time.monotonic() + seconds
        process = os.pidfd_open(pid)
        try:
            while True:
                part = (ctypes.c_size_t * 2)(address, size)
                done = _libc.syscall(_PROCESS_MADVISE, process, part, 1, _MADV_PAGEOUT, 0)
                if done != size:
                    raise Refused("pages cannot be brought to swap: "
                                  f"{os.strerror(ctypes.get_errno())}")
                stay = self._present(pid, address, size)
                if stay <= (1 - share) * size / _PAGE:
                    return
                if time.monotonic() > end:
                    raise RuntimeError(f"{stay} of {size // _PAGE} pages don't go to swap")
                time.sleep(0.05)
        finally:
            os.close(process)

    @staticmethod
    def _present(pid, address, size):
        with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
            pagemap.seek(address // _PAGE * 8)
            entries = numpy.frombuffer(pagemap.read(size // _PAGE * 8), dtype=numpy.uint64)
        return int(numpy.count_nonzero(entries >> numpy.uint64(63)))


class MergedPages(fixtures.Fixture):
    """KSM, at work while `merge` waits for it; left off, with what it had merged apart again."""

    #: What a test needs of the kernel's thread. Smart scans pass over what could not be merged a
    #: few times, for up to eight scans: of two guests of which one is older each page is then
    #: looked at in scans in which its twin is not, and they never meet.
    _WANTED = {"pages_to_scan": 100_000, "sleep_millisecs": 10, "smart_scan": 0}
    #: In a first scan sums are made, in a second one pages meet.
    _SCANS = 3

    def _setUp(self):
        self.useFixture(_Turn("ksm"))
        try:
            if (_KSM / "run").read_text().strip() != "0":
                raise Refused("KSM is in use on this machine")
            before = {name: (_KSM / name).read_text().strip() for name in self._WANTED
                      if (_KSM / name).exists()}
            self._merged(os.getpid())
        except OSError as error:
            raise Refused(f"this kernel has no KSM: {error.strerror}") from error
        for name, value in before.items():
            self.addCleanup(_write, _KSM / name, value)
            _write(_KSM / name, self._WANTED[name])
        self.addCleanup(_write, _KSM / "run", 0)
        self.addCleanup(_write, _KSM / "run", 2)

    def merge(self, *pids, seconds=300):
        """Let it work until whole scans find nothing more to merge in these processes."""
        _write(_KSM / "run", 1)
        end = time.monotonic() + seconds
        found = []
        while len(found) < self._SCANS or len(set(found[-self._SCANS:])) > 1:
            scans = self._scans()
            while self._scans() == scans:
                if time.monotonic() > end:
                    raise RuntimeError(f"after {seconds} s and {len(found)} scans of KSM "
                                       f"processes {pids} still change: {found[-5:]}")
                time.sleep(0.05)
            found.append(tuple(self._merged(pid) for pid in pids))

    @staticmethod
    def _merged(pid):
        return int(pathlib.Path(f"/proc/{pid}/ksm_merging_pages").read_text())

    @staticmethod
    def _scans():
        return int((_KSM / "full_scans").read_text())

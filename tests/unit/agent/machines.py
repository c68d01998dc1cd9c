"""What tests need of the machine beside processes: switched on for a test, off again behind it.

Each is refused with a reason where the machine does not allow it, or where it is in use already.
"""

import ctypes
import os
import pathlib
import subprocess
import time

import fixtures

MIB = 1 << 20
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


class HugePages(fixtures.Fixture):
    """At least so many huge pages of 2 MiB that are free."""

    def __init__(self, pages):
        self._pages = pages

    def _setUp(self):
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

    def push_out(self, pid, address, size):
        """Bring a range of a process's memory to swap."""
        process = os.pidfd_open(pid)
        try:
            part = (ctypes.c_size_t * 2)(address, size)
            done = _libc.syscall(_PROCESS_MADVISE, process, part, 1, _MADV_PAGEOUT, 0)
        finally:
            os.close(process)
        if done != size:
            raise Refused(f"pages cannot be brought to swap: {os.strerror(ctypes.get_errno())}")


class MergedPages(fixtures.Fixture):
    """KSM at work; left off, with what it had merged apart again."""

    def _setUp(self):
        try:
            before = {name: (_KSM / name).read_text().strip()
                      for name in ("run", "pages_to_scan", "sleep_millisecs")}
        except OSError as error:
            raise Refused(f"this kernel has no KSM: {error.strerror}") from error
        if before["run"] != "0":
            raise Refused("KSM is in use on this machine")
        for name in ("pages_to_scan", "sleep_millisecs"):
            self.addCleanup(_write, _KSM / name, before[name])
        self.addCleanup(_write, _KSM / "run", 0)
        self.addCleanup(_write, _KSM / "run", 2)
        _write(_KSM / "pages_to_scan", 100_000)
        _write(_KSM / "sleep_millisecs", 10)
        _write(_KSM / "run", 1)

    def wait(self, scans=3, seconds=150):
        """Wait until all memory has been looked at so many times more."""
        end = time.monotonic() + seconds
        wanted = self._scans() + scans
        while self._scans() < wanted:
            if time.monotonic() > end:
                raise RuntimeError(f"KSM is at scan {self._scans()} of {wanted}")
            time.sleep(0.1)

    def _scans(self):
        return int((_KSM / "full_scans").read_text())

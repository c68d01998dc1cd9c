"""What a result was measured on: cores, memory, kernel, QEMU, Python, commit, storage's group.

Called by the command line for every result. Only reads, but for a probe of that group.
"""
import os
import pathlib
import platform
import subprocess
import time

from nbmlab import cgroups, layout

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def describe() -> dict:
    """Return the machine as the JSON's `machine`."""
    return {"cores": os.cpu_count(), "processor": _processor(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(), "qemu": _qemu(), "python": platform.python_version(),
            "commit": commit(), "changed_files": _changed(), "load_average": os.getloadavg()[0],
            "lab_storage_group": cgroups.told()}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process of ours, ended threads included, until it is waited for.

    Its clock counts nanoseconds; /proc would tell hundredths of a second. ProcessLookupError for
    a process that is gone.
    """
    # the kernel's number for that clock: clock_getcpuclockid(3), which Python does not offer
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError as error:
        raise ProcessLookupError(f"no process {pid}") from error


def peak_memory_bytes(pid: int) -> int:
    """Return the most memory that a process has had in RAM at once until now."""
    told = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in told.splitlines()
                if line.startswith("VmHWM:"))


def commit() -> str:
    """Return the hash of the checkout's commit, "unknown" outside a repository."""
    return _output("git", "-C", CHECKOUT, "rev-parse", "HEAD") or "unknown"


def _changed() -> int:
    return len(_output("git", "-C", CHECKOUT, "status", "--porcelain",
                       "--untracked-files=no").splitlines())


def _processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _qemu() -> str:
    version = _output(layout.QEMU / "usr/bin/qemu-system-x86_64", "--version")
    return version.partition("\n")[0].removeprefix("QEMU emulator version ") or "not installed"


def _output(*command: object) -> str:
    try:
        return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              check=False).stdout.strip()
    except OSError:
        return ""

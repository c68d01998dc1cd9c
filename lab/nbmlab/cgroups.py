"""The processor group of the lab's storage, which no guest keeps waiting.

All others, daemons and guests, are sessions of their own that weigh alike. Called by daemon,
services and teardown. cgroup v1 and v2; where neither can be used there is no group, and `told`
says why.
"""
import dataclasses
import functools
import os
import pathlib
import time

#: Serves the instances directory. It does little, and no guest of its clients takes processors from
#: what serves their disks: it weighs a hundred times as much as a session.
STORAGE = "storage"
PREFIX = "nbm-"
REMOVE_SECONDS = 5.0
#: Before a command that is to run in a group; where the group is gone it runs all the same.
_JOIN = 'echo $$ >"$0"; exec "$@"'
#: The first that there is.
_HEAVY = (("cpu.weight", "10000"), ("cpu.shares", "102400"))


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Where the processors' cgroups are."""

    mount: pathlib.Path
    version: int

    def top(self, machine: str) -> pathlib.Path:
        """Return the group of a machine of the lab."""
        return self.mount / f"{PREFIX}{machine}"


def find(mounts: str) -> Hierarchy | str:
    """Return the hierarchy with the cpu controller by /proc/mounts, or why there is none."""
    unified = None
    for line in mounts.splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup" and "cpu" in options.split(","):
            return _writable(Hierarchy(pathlib.Path(mount), 1), options)
        if kind == "cgroup2":
            unified = pathlib.Path(mount), options
    if unified is None:
        return "no cgroup hierarchy is mounted"
    mount, options = unified
    if "cpu" not in _read(mount / "cgroup.controllers").split():
        return f"{mount} has no cpu controller"
    return _writable(Hierarchy(mount, 2), options)


@functools.cache
def hierarchy() -> Hierarchy | str:
    """Return the hierarchy of this machine in which groups can be made, or why they cannot."""
    found = find(pathlib.Path("/proc/mounts").read_text())
    return found if isinstance(found, str) else probed(found)


def probed(found: Hierarchy) -> Hierarchy | str:
    """Return the hierarchy if a group with a weight can be made there, or why it cannot."""
    probe = found.top(f"probe-{os.getpid()}")
    try:
        _divide(found, found.mount)
        probe.mkdir()
        try:
            weighs = (probe / ("cpu.shares" if found.version == 1 else "cpu.weight")).exists()
        finally:
            probe.rmdir()
    except OSError as error:
        return f"no group can be made in {found.mount}: {error.strerror}"
    return found if weighs else f"groups in {found.mount} have no weight"


def told() -> str:
    """Return "cgroup v1", "cgroup v2" or "none: " and why: for lab/status and benchmarks."""
    found = hierarchy()
    return f"none: {found}" if isinstance(found, str) else f"cgroup v{found.version}"


def joining(machine: str) -> tuple[str, ...]:
    """Return the words before a command that make it run in a group of its own, which is made.

    No words where there can be none.
    """
    group = _group(machine)
    if group is None:
        return ()
    group.mkdir(exist_ok=True)
    for name, weight in _HEAVY:
        if (group / name).exists():
            (group / name).write_text(weight)
            break
    return ("sh", "-c", _JOIN, str(group / "cgroup.procs"))


def processes(machine: str) -> list[int]:
    """Return the pids of all processes in a machine's group."""
    group = _group(machine)
    return [] if group is None else sorted(map(int, _read(group / "cgroup.procs").split()))


def remove(machine: str) -> None:
    """Remove the group of a machine whose processes were killed; give up after 5 s."""
    group, end = _group(machine), time.monotonic() + REMOVE_SECONDS
    while group is not None and group.exists():
        try:
            group.rmdir()
        except OSError:                # a process of it is still on its way out
            if time.monotonic() > end:
                return
            time.sleep(0.02)


def _group(machine: str) -> pathlib.Path | None:
    found = hierarchy()
    return None if isinstance(found, str) else found.top(machine)


def _divide(found: Hierarchy, group: pathlib.Path) -> None:
    """Give the children of a group weights of their own; version 1 does by itself."""
    control = group / "cgroup.subtree_control"
    if found.version == 2 and "cpu" not in control.read_text().split():
        control.write_text("+cpu")


def _writable(found: Hierarchy, options: str) -> Hierarchy | str:
    return f"{found.mount} is read-only" if "ro" in options.split(",") else found


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

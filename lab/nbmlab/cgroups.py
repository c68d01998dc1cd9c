"""The processor groups of the lab: hosts and controller weigh the same, whatever runs in them.

On a host of systemd and libvirt all services are in system.slice and all guests in machine.slice,
which weigh the same. So a host of the lab has a cpu cgroup with the children `system` (a group a
service), `machine` (a group a guest, which libvirt makes itself) and `user` (commands of lab/host);
otherwise each daemon and each guest would weigh as much as any session of the machine.

Called by daemon, host, services and teardown. cgroup v1 and v2; where neither can be used nothing
is grouped, and `told` says why.
"""
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Iterator

CONTROLLER = "controller"
#: Serves the instances directory. It does little, and no guest of its clients takes processors from
#: what serves their disks: it weighs a hundred times as much as a host.
STORAGE = "storage"
PREFIX = "nbm-"
REMOVE_SECONDS = 5.0
#: Before a command that is to run in a group; where the group is gone it runs all the same.
_JOIN = 'echo $$ >"$0"; exec "$@"'
#: What makes a group take only what its siblings leave, as CPUWeight=idle; the first there is.
_IDLE = (("cpu.idle", "1"), ("cpu.weight", "1"), ("cpu.shares", "2"))
_HEAVY = (("cpu.weight", "10000"), ("cpu.shares", "102400"))


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Where the processors' cgroups are; for version 1 with the controllers mounted together."""

    mount: pathlib.Path
    version: int
    controllers: str = ""

    def top(self, machine: str) -> pathlib.Path:
        """Return the group of a machine of the lab."""
        return self.mount / f"{PREFIX}{machine}"


def find(mounts: str) -> Hierarchy | str:
    """Return the hierarchy with the cpu controller by /proc/mounts, or why there is none."""
    unified = None
    for line in mounts.splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup" and "cpu" in options.split(","):
            own = [word for word in options.split(",") if word in ("cpu", "cpuacct")]
            return _writable(Hierarchy(pathlib.Path(mount), 1, ",".join(own)), options)
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


def usable() -> bool:
    """Tell whether this machine lets the lab make groups."""
    return isinstance(hierarchy(), Hierarchy)


def make(machine: str) -> None:
    """Make the group of a machine, without children: version 2 lets a process in only then."""
    found = hierarchy()
    if isinstance(found, Hierarchy):
        found.top(machine).mkdir(exist_ok=True)
        if machine == STORAGE:
            _write_first(found.top(machine), _HEAVY)


def divide(machine: str) -> None:
    """Let the services of a machine have groups; no process may be in its top group any more."""
    found = hierarchy()
    if isinstance(found, Hierarchy):
        system = found.top(machine) / "system"
        system.mkdir(exist_ok=True)
        _divide(found, found.top(machine))
        _divide(found, system)


def entering(machine: str) -> tuple[str, ...]:
    """Return the words before a command that make it run in a machine's top group."""
    found = hierarchy()
    return _joining(found.top(machine)) if isinstance(found, Hierarchy) else ()


def joining(machine: str, *names: str, idle: bool = False) -> tuple[str, ...]:
    """Return the words before a command that make it run in a group below a machine's.

    The group is made; `idle`: it takes what its siblings leave. No words for a machine without.
    """
    found = hierarchy()
    if isinstance(found, str) or not found.top(machine).is_dir():
        return ()
    group = found.top(machine).joinpath(*names)
    group.mkdir(parents=True, exist_ok=True)
    if idle:
        _write_first(group, _IDLE)
    return _joining(group)


def mounting() -> tuple[str, ...]:
    """Return what etc/hold-host mounts for libvirt: version, controllers; nothing without."""
    found = hierarchy()
    return (str(found.version), found.controllers) if isinstance(found, Hierarchy) else ()


def processes(machine: str) -> list[int]:
    """Return the pids of all processes in the groups of a machine."""
    return sorted({int(word) for group in _groups(machine)
                   for word in _read(group / "cgroup.procs").split()})


def remove(machine: str) -> None:
    """Remove the groups of a machine whose processes were killed; give up after 5 s."""
    end = time.monotonic() + REMOVE_SECONDS
    while groups := list(_groups(machine)):
        for group in groups:
            try:
                group.rmdir()
            except OSError:                # a process of it is still on its way out
                continue
        if time.monotonic() > end:
            return
        time.sleep(0.02)


def _groups(machine: str) -> Iterator[pathlib.Path]:
    """Go over the groups of a machine, children first."""
    found = hierarchy()
    if isinstance(found, Hierarchy):
        for directory, _, _ in os.walk(found.top(machine), topdown=False):
            yield pathlib.Path(directory)


def _divide(found: Hierarchy, group: pathlib.Path) -> None:
    """Give the children of a group weights of their own; version 1 does by itself."""
    control = group / "cgroup.subtree_control"
    if found.version == 2 and "cpu" not in control.read_text().split():
        control.write_text("+cpu")


def _write_first(group: pathlib.Path, values: tuple[tuple[str, str], ...]) -> None:
    """Write the first of these files that the group has."""
    for name, value in values:
        if (group / name).exists():
            (group / name).write_text(value)
            return


def _joining(group: pathlib.Path) -> tuple[str, ...]:
    return ("sh", "-c", _JOIN, str(group / "cgroup.procs"))


def _writable(found: Hierarchy, options: str) -> Hierarchy | str:
    return f"{found.mount} is read-only" if "ro" in options.split(",") else found


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

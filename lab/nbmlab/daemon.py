"""Starts, finds and stops the lab's processes by what /proc says, never by a pid file alone.

Used by services, host and teardown. A record (run/NAME.json) names pid, birth and what it was
started from.
"""
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time

from nbmlab import cgroups, layout, shell, stamps

# Every daemon's working directory, below the state directory; nobody else has a reason to be in it.
HOME = "run/daemons"


@dataclasses.dataclass(frozen=True)
class Daemon:
    """A process of the lab: what to run, and the files whose change asks for a restart."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    reads: tuple[pathlib.Path, ...] = ()
    #: Whose processor group it has; None: it is a session as others are.
    machine: str | None = None

    @property
    def digest(self) -> str:
        return stamps.digest(self.command, sorted(self.environment.items()), self.machine,
                             *(path for path in self.reads if path.is_file()))


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a started process; `birth` tells it from a later one with the same pid."""

    pid: int
    birth: int
    started_seconds: float             # Unix time
    digest: str


def birth(pid: int) -> int | None:
    """Return the start time of a living process in clock ticks since boot, None without one."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def record(name: str) -> Record | None:
    """Return the record of a daemon that runs, None when it is dead or was never started."""
    try:
        found = Record(**json.loads((layout.RUN / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None
    return found if birth(found.pid) == found.birth else None


def names() -> list[str]:
    """Return the names of all daemons that were started and not stopped on purpose."""
    return sorted(path.stem for path in layout.RUN.glob("*.json"))


def start(daemon: Daemon) -> Record:
    """Start the daemon unless it runs from the same command, environment and files."""
    running = record(daemon.name)
    if running and running.digest == daemon.digest:
        return running
    if running:
        shell.say(f"restart {daemon.name}: it runs with an older configuration")
        stop(daemon.name)
    home = layout.STATE / HOME
    home.mkdir(parents=True, exist_ok=True)
    log = layout.LOG / f"{daemon.name}.log"
    joining = cgroups.joining(daemon.machine) if daemon.machine else ()
    with log.open("ab") as output:
        process = subprocess.Popen((*joining, *daemon.command), stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output, start_new_session=True, cwd=home,
                                   env=shell.environment(**daemon.environment, **{
                                       layout.MARKER: str(layout.STATE)}))
    made = Record(process.pid, birth(process.pid) or 0, time.time(), daemon.digest)
    (layout.RUN / f"{daemon.name}.json").write_text(json.dumps(dataclasses.asdict(made)))
    return made


def stop(name: str, patience_seconds: float = 3) -> None:
    """End a daemon and its whole process group: SIGTERM, SIGKILL after the given seconds."""
    running = record(name)
    if running:
        group_signal(running.pid, signal.SIGTERM)
        end = time.monotonic() + patience_seconds
        while birth(running.pid) == running.birth and time.monotonic() < end:
            time.sleep(0.05)
        group_signal(running.pid, signal.SIGKILL)
        # what is left of the group may hold the port that a follower needs
        while birth(running.pid) == running.birth or _members(running.pid):
            time.sleep(0.02)
    (layout.RUN / f"{name}.json").unlink(missing_ok=True)


def group_signal(pid: int, number: signal.Signals) -> None:
    """Signal the process group that a daemon leads."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _members(leader: int) -> list[int]:
    """Return the pids of a process group that live; its leader may be gone."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            pid = int(directory.name)
            if os.getpgid(pid) == leader and birth(pid) is not None:
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


def resident_bytes(name: str) -> int:
    """Return the resident memory of a daemon's whole process group."""
    leader = record(name)
    total = 0
    for pid in _members(leader.pid) if leader else ():
        try:
            total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue                   # it has ended
    return total * os.sysconf("SC_PAGE_SIZE")


def marked(state: pathlib.Path) -> list[int]:
    """Return the pids of all daemons of the lab with that state directory, recorded or not.

    By the marker in their environment, or by their working directory: a process that writes its
    own title, as Nova's services do, overwrites its environment in /proc.
    """
    wanted = f"{layout.MARKER}={state}".encode()
    home = str(state / HOME)
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (directory / "environ").read_bytes().split(b"\0") \
                    or os.readlink(directory / "cwd") == home:
                found.append(int(directory.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def kill(pids: list[int], seconds: float = 5) -> None:
    """Kill processes outright and return when they are gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    end = time.monotonic() + seconds
    while any(birth(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)

"""The agent's passes over guests of the rig, one behind the other, in a process that can be held.

Used by telemetry_cost to alternate windows with and without measuring. A held pass stands still
wherever it is, and its clock with it: looks, pace and time limits know nothing of the hold, and
nothing is caught up afterwards. What runs between two holds is a piece of a pass as in production,
and all pieces together are whole passes, at their own rate. Run as a program for the process.
"""
import json
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy

from nbmbench import telemetry
from nbmbench.rig import Guest
from nbmbench.rig.qmp import Qmp
from nova_batch_migrate.agent import comparing, dirty_rate, memory, remembered, scan

#: What both processes see, as float64: seconds held in all, bytes of guests read, passes done.
_HELD, _BYTES, _PASSES = range(3)
_FIELDS = 3
#: As long as it takes, as for a plan; as before migrations, which wait for it.
KINDS = PLAN, MOVE = "plan", "move"
#: As these take turns, both kinds are at work for about as long.
_TURNS = MOVE, MOVE, MOVE, PLAN
#: Sketches for comparing hosts are made where a deployment has a secret.
_SECRET = "benchmark"
_READY_SECONDS = 120.0


def over(guests: list[Guest], scratch: pathlib.Path) -> "Held":
    """Return the process of passes over these guests; their monitors are its own from now on."""
    for guest in guests:
        guest.qmp.close()
    asked = [{"name": guest.spec.name, "uuid": guest.spec.uuid, "pid": guest.pid,
              "memory_bytes": guest.spec.memory_bytes, "monitor": str(guest.directory / "qmp")}
             for guest in guests]
    return Held([sys.executable, "-m", __name__, json.dumps(asked)], scratch)


class Held:
    """A program whose clock stands still while it is held; a context, held at first, that ends it.

    Start it from the main thread: it dies with that. The file that both share is added to the
    command: see HeldClock. It writes a line when it is ready, and a line of JSON for each pass.
    """

    def __init__(self, command: list[str], scratch: pathlib.Path):
        path, self._told = scratch / "held", scratch / "told"
        path.write_bytes(bytes(mmap.PAGESIZE))
        self._shared = shared(path)
        with self._told.open("wb") as told:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, str(path)], stdout=told,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        self._stopped_at = 0.0

    def __enter__(self) -> "Held":
        end = time.monotonic() + _READY_SECONDS
        while not self._told.stat().st_size:
            if time.monotonic() > end or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError("the process to be held does not come up")
            time.sleep(0.05)
        self.hold()
        return self

    def __exit__(self, *exc_info) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def hold(self) -> None:
        """Stop where it is; returns once it stands still."""
        os.kill(self._process.pid, signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = status
            raise RuntimeError(f"the process to be held ended with status {status}")
        self._stopped_at = time.monotonic()

    def go_on(self) -> None:
        """Go on from there, as if no time had passed."""
        self._shared[_HELD] += time.monotonic() - self._stopped_at
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def read_bytes(self) -> int:
        """Bytes of guests read so far."""
        return int(self._shared[_BYTES])

    @property
    def done(self) -> int:
        """Passes that are over."""
        return int(self._shared[_PASSES])

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far."""
        return time.clock_gettime(~self._process.pid << 3 | 2)

    def told(self) -> list[dict]:
        """Return what each pass that is over says: seconds by its clock, CPU seconds, bytes."""
        # the first line says that it is ready
        return [json.loads(line) for line in self._told.read_text().splitlines()[1:]]


class HeldClock:
    """Stands where the module `time` stands in the agent; does not go while the process is held."""

    def __init__(self, fields: numpy.ndarray):
        self._fields = fields

    def monotonic(self) -> float:
        """Return the seconds in which the process was not held."""
        while True:
            held = float(self._fields[_HELD])
            now = time.monotonic()
            # held between the two readings, one of them would be of another time
            if held == self._fields[_HELD]:
                return now - held

    def sleep(self, seconds: float) -> None:
        """Sleep so long by this clock."""
        end = self.monotonic() + seconds
        time.sleep(max(0.0, seconds))
        while (left := end - self.monotonic()) > 0:
            time.sleep(left)


def shared(path: pathlib.Path) -> numpy.ndarray:
    """Return the fields of a file that both processes have mapped."""
    with path.open("r+b") as opened:
        return numpy.frombuffer(mmap.mmap(opened.fileno(), mmap.PAGESIZE), numpy.float64, _FIELDS)


def main() -> None:
    """Pass over the guests of argv[1] until the process is ended; tell each pass in a line."""
    asked, fields = json.loads(sys.argv[1]), shared(pathlib.Path(sys.argv[2]))
    clock = HeldClock(fields)
    for module in (comparing, dirty_rate, memory, remembered, scan):
        module.time = clock
    spend = memory.Pace.spend

    def counted(pace, size_bytes: int, makes_up: bool = False) -> None:
        spend(pace, size_bytes, makes_up)
        fields[_BYTES] += size_bytes

    memory.Pace.spend = counted
    guests = [types.SimpleNamespace(
        pid=each["pid"], qmp=Qmp(pathlib.Path(each["monitor"])),
        spec=types.SimpleNamespace(name=each["name"], uuid=each["uuid"],
                                   memory_bytes=each["memory_bytes"])) for each in asked]
    print(json.dumps({"ready": True}), flush=True)
    while True:
        kind = _TURNS[int(fields[_PASSES]) % len(_TURNS)]
        begun, cpu, read = clock.monotonic(), time.process_time(), fields[_BYTES]
        found = telemetry.measure(guests, secret=_SECRET, waited_for=kind == MOVE)
        print(json.dumps({
            "kind": kind, "seconds": clock.monotonic() - begun,
            "cpu_seconds": time.process_time() - cpu,
            "read_bytes": int(fields[_BYTES] - read),
            "complete": all(server.contents_read for server in found),
            "present_bytes": memory.PAGE_BYTES * sum(server.present_pages for server in found)}),
            flush=True)
        fields[_PASSES] += 1


if __name__ == "__main__":
    main()

"""The hosts' own threads before all others, as on machines with processors to spare.

Two hosts and a controller of the lab share one machine's processors, which real ones do not take
from each other: with two cores, both full, libvirt waits for guests that run already and for Nova's
services. Within `scheduled` libvirt, the relays and QEMU's own threads, all but the guests'
processors, are scheduled round-robin (SCHED_RR) and so find one at once. Called by suite/downtime.
"""
import contextlib
import os
import pathlib
import threading
from collections.abc import Container, Iterator

from nbmlab import daemon, shell

from nbmbench import cloud
from nova_batch_migrate.relay import attribution

PRIORITY = 1
#: Between two looks for new QEMUs. They inherit libvirtd's scheduling; the guest of one that awaits
#: a migration runs much later.
LOOK_SECONDS = 0.5
#: What QEMU calls the threads of a guest's processors.
_GUEST = "CPU "


@contextlib.contextmanager
def scheduled(first: bool) -> Iterator[None]:
    """Until the end let the hosts' own threads go first, or be as all others are.

    LabError where this machine permits it to none.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            for pid in _qemus(_networks()):
                _schedule(pid, os.SCHED_RR)

    looking = threading.Thread(target=look)
    # an earlier run may have been killed
    _all(os.SCHED_OTHER)
    try:
        if first:
            # what they start later inherits it
            _all(os.SCHED_RR)
            looking.start()
        yield
    finally:
        over.set()
        if looking.ident:
            looking.join()
        _all(os.SCHED_OTHER)


def _all(policy: int) -> None:
    daemons = [record.pid for name in cloud.HOSTS for kind in ("libvirtd", "batch-relay")
               if (record := daemon.record(f"{kind}-{name}"))]
    try:
        for pid in [*daemons, *_qemus(_networks())]:
            _schedule(pid, policy)
    except PermissionError as error:
        raise shell.LabError(f"no thread of this machine may be scheduled round-robin: {error}. "
                             "Measure with --only crowded.") from error


def _networks() -> set[int]:
    """Return the network namespaces of the lab's hosts."""
    return {path.stat().st_ino for name in cloud.HOSTS
            if (path := pathlib.Path("/run/netns", name)).exists()}


def _qemus(networks: Container[int]) -> list[int]:
    """Return the pids of the QEMUs in these network namespaces."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if attribution.qemu_server(str(directory)) \
                    and (directory / "ns/net").stat().st_ino in networks:
                found.append(int(directory.name))
    return found


def _schedule(pid: int, policy: int) -> None:
    """Schedule all threads of a process so, but the processors of a guest as any others."""
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        # it may have ended
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            number, guest = int(thread.name), (thread / "comm").read_text().startswith(_GUEST)
            wanted = os.SCHED_OTHER if guest else policy
            if os.sched_getscheduler(number) != wanted:
                os.sched_setscheduler(number, wanted, os.sched_param(
                    PRIORITY if wanted == os.SCHED_RR else 0))

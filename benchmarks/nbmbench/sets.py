"""Sets that move together through Nova and libvirt: when each member went on, how long it stood.

Called by suite/downtime.py on a lab that is up. The moments are libvirt's *Resumed* events at the
destination, the downtimes those of `virsh domjobinfo --completed` there.
"""
import contextlib
import datetime
import re
import subprocess
import time
from collections.abc import Iterator, Sequence

from nbmlab import cloud as nova
from nbmlab import host, layout
from nbmlab.guests import Guest

from nbmbench import cloud

_RESUMED = re.compile(r"^(\S+ \S+)\+0000: event 'lifecycle' for domain '?([\w-]+)'?: Resumed")
#: For virsh to begin to listen, and to tell the last events.
_LISTEN_SECONDS = 1.0


@contextlib.contextmanager
def resumed(host_name: str) -> Iterator[dict[str, float]]:
    """Note when libvirt tells that a domain of a host goes on; seconds since the epoch by name."""
    moments: dict[str, float] = {}
    with subprocess.Popen(
            [*host.inside(layout.host_named(host_name)), "stdbuf", "-oL", "virsh", "event",
             "--event", "lifecycle", "--loop", "--timestamp"],
            stdout=subprocess.PIPE, text=True) as process:
        time.sleep(_LISTEN_SECONDS)
        try:
            yield moments
        finally:
            time.sleep(_LISTEN_SECONDS)
            process.terminate()
            for line in process.stdout:
                if found := _RESUMED.match(line):
                    moment = datetime.datetime.fromisoformat(found[1] + "+00:00")
                    moments[found[2]] = moment.timestamp()


def move(members: Sequence[Guest]) -> list[dict]:
    """Move guests of one host together; return facts of each, in their order.

    LabError where they have not all arrived.
    """
    destination = cloud.other(cloud.place(members[0]))
    cloud.enable()
    with resumed(destination) as moments:
        told = cloud.batch(members, synchronized=[[guest.id for guest in members]])
    facts = []
    for guest in members:
        job = cloud.completed_job(guest, destination)
        server = next(each for each in told["servers"] if each["id"] == guest.id)
        facts.append({"guest": guest.name, "status": "completed",
                      "downtime_seconds": job["downtime"] / 1000,
                      "total_seconds": job["time_elapsed"] / 1000,
                      "resumed_at": moments[_domain(guest)], "attempts": server["attempts"],
                      "job": job, "relay": server["relay"]})
    return facts


def _domain(guest: Guest) -> str:
    return nova.Cloud().get("nova-api", f"/servers/{guest.id}")["server"][
        "OS-EXT-SRV-ATTR:instance_name"]

"""Which contents the guests of a relay's group hold more than once, for the relay of this host.

Called by relays.py when a group is opened. Works on what the privileged process remembers of the
last scan, which of many guests has held a share; what leaves it are the lower halves of seeded
hashes, and only where a dictionary is too small.
"""

import base64

import numpy
from oslo_log import log

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import remembered
from nova_batch_migrate.agent.memory import PAGE_BYTES

LOG = log.getLogger(__name__)
_LOW = numpy.uint64((1 << 32) - 1)
#: Of a group: what fits a line of the control socket, and is many times a dictionary.
MOST_HASHES = 2 << 20


def of_group(group: dict) -> dict[str, dict]:
    """Return for each scope of a group (values.Group as a dict) seed, share and hashes of XXH3.

    In JSON's form, as values.Group wants them. A scope whose contents all fit its dictionary, or
    with a server that was not read, is left out: the relay then takes whatever comes.
    """
    scopes: dict[str, list[str]] = {}
    for member in group.get("members", ()):
        if member["scope"] is not None:
            scopes.setdefault(member["scope"], []).append(member["server_id"])
    if not scopes:
        return {}
    pages = group["dictionary_bytes"] // len(scopes) // PAGE_BYTES
    try:
        found = recurring(list(scopes.values()), pages, MOST_HASHES // len(scopes))
    except privsep.FAILURES as error:
        LOG.warning("group %s: nothing is known of what recurs in it: %s", group["id"], error)
        return {}
    return {scope: told | {"hashes": base64.b64encode(told["hashes"]).decode()}
            for scope, told in zip(scopes, found, strict=True) if told}


@privsep.memory_pctxt.entrypoint
def recurring(logs: list[list[str]], log_pages: int, most: int) -> list[dict | None]:
    """Return what recurs in each log's servers: ``hashes`` (u32, ascending, as bytes), ``seed``.

    And ``theta``, the share of the hash space that the scan held. ``most`` hashes at most, first
    those that most servers hold. None where everything fits ``log_pages``, or where a server was
    not read to its end.
    """
    return [_of_log([remembered.known(server) for server in servers], log_pages, most)
            for servers in logs]


def _of_log(known: list, log_pages: int, most: int) -> dict | None:
    if None in known or len({each.seed for each in known}) != 1:
        return None
    theta = min(each.contents.theta for each in known)
    contents = [each.contents.below(theta) for each in known]
    hashes, counts = numpy.unique(
        numpy.concatenate([each.hashes for each in contents]), return_counts=True)
    if len(hashes) <= theta * log_pages:
        return None
    shared = counts > 1
    by_holders = numpy.argsort(-counts[shared], kind="stable")
    again = numpy.concatenate([hashes[shared][by_holders],
                               *(each.repeated for each in contents)])[:most]
    return {"seed": known[0].seed, "theta": theta,
            "hashes": numpy.unique((again & _LOW).astype(numpy.uint32)).tobytes()}

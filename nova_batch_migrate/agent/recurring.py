"""Which contents the guests of a relay's group hold more than once, for the relay of this host.

Called by relays.py when a group is opened. Works on what the privileged process remembers of the
last scan; what leaves it are the lower halves of seeded hashes, and only where a dictionary is too
small.
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
    """Return for each scope of a group (values.Group as a dict) the seed and hashes of XXH3.

    In JSON's form, as values.Group wants them. A scope whose contents all fit its dictionary, or
    are not all known, is left out: the relay then takes whatever comes.
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
    return {scope: {"seed": told["seed"], "hashes": base64.b64encode(told["hashes"]).decode()}
            for scope, told in zip(scopes, found, strict=True) if told}


@privsep.memory_pctxt.entrypoint
def recurring(logs: list[list[str]], log_pages: int, most: int) -> list[dict | None]:
    """Return seed and hashes (u32, ascending, as bytes) of what recurs in each log's servers.

    ``most`` of them at most, first those that most servers hold. None where everything fits
    ``log_pages``, or where a server's contents are not known whole.
    """
    return [_of_log([remembered.known(server) for server in servers], log_pages, most)
            for servers in logs]


def _of_log(known: list, log_pages: int, most: int) -> dict | None:
    if any(each is None or each.contents.theta < 1 for each in known) or \
            len({each.seed for each in known}) != 1:
        return None
    hashes, counts = numpy.unique(
        numpy.concatenate([each.contents.hashes for each in known]), return_counts=True)
    if len(hashes) <= log_pages:
        return None
    shared = counts > 1
    by_holders = numpy.argsort(-counts[shared], kind="stable")
    again = numpy.concatenate([hashes[shared][by_holders],
                               *(each.contents.repeated for each in known)])[:most]
    return {"seed": known[0].seed,
            "hashes": numpy.unique((again & _LOW).astype(numpy.uint32)).tobytes()}

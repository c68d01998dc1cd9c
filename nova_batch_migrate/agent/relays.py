"""The relay of this host as the agent sees it: is it there, where do its peers reach it.

Called by manager.py and preflight.py. Carries nothing itself; the relay is a process of its own.
"""

import contextlib

from nova_batch_migrate import exception
from nova_batch_migrate.agent import nova_options, recurring
from nova_batch_migrate.relay import control, values


def client(conf) -> control.Client:
    """Return a client of this host's relay."""
    return control.Client(conf.relay.control_socket)


def describe(conf) -> dict | None:
    """Return the relay's name, address, port, version, speed and memory; None where none answers.

    The address is the one to which migrations of Nova come: the two must be the same, or the
    redirect at the source would not see them.
    """
    try:
        found = client(conf).hello()
    except exception.RelayError:
        return None
    options = nova_options.read(conf.agent.nova_config_files)
    address = options["live_migration_inbound_addr"]
    if address in (None, nova_options.UNKNOWN):
        # libvirt at the source then takes the host's name
        address = conf.host
    return {**found, "address": address}


def open_group(conf, group: dict) -> None:
    """Open a group; its source's relay is told what recurs, where not everything has room."""
    if group.get("role") == values.SOURCE:
        group = group | {"recurring": recurring.of_group(group)}
    client(conf).open_group(group)


def open_groups(conf) -> list[dict]:
    """Return the statistics of the groups that leave this host; none where no relay answers."""
    try:
        return client(conf).statistics()["groups"]
    except exception.RelayError:
        return []


@contextlib.contextmanager
def refusals():
    """Turn what the relay refuses into what an agent refuses."""
    try:
        yield
    except exception.RelayUnavailable as error:
        raise exception.AgentRefused(reason=error.text) from error
    except exception.RelayError as error:
        raise exception.AgentRefused(
            reason=error.kwargs.get("reason") or error.text) from error

"""Client of the agents; the conductor's only way to a compute host.

Every method raises the exceptions of ``nova_batch_migrate.exception``; AgentUnavailable when the
agent of the host does not answer in ``[conductor] agent_timeout_seconds``.
"""

import oslo_messaging as messaging

from nova_batch_migrate import exception, rpc


class AgentAPI:
    """Calls to the agent of one host; ``host`` is its name in Nova.

    1.0 - initial version.
    1.1 - start_measure: max_wait_seconds, seconds. get_measure: host, with page_classes in it.
        progress: of several servers. recall, relay, open_group, close_group, leave_group,
        limit_group, relay_statistics.
    """

    def __init__(self, conf, transport=None):
        self._transport = transport or rpc.get_agent_transport(conf)
        self._timeout = conf.conductor.agent_timeout_seconds

    def _call(self, ctxt, host: str, method: str, **arguments):
        client = rpc.get_client(self._transport, rpc.agent_target(host), self._timeout)
        try:
            return client.call(ctxt, method, **arguments)
        except (messaging.MessagingTimeout, messaging.MessageDeliveryFailure) as error:
            raise exception.AgentUnavailable(host=host) from error

    def preflight(self, ctxt, host: str) -> dict:
        """Return versions, accelerator, Nova's options, KSM, and problems with what to do."""
        return self._call(ctxt, host, "preflight")

    def inventory(self, ctxt, host: str) -> list[dict]:
        """Return the host's domains by server id."""
        return self._call(ctxt, host, "inventory")

    def start_measure(self, ctxt, host: str, batch_id: str, servers: list[str],
                      windows_seconds: list[float], max_wait_seconds: float = 0.0,
                      seconds: float = 0.0) -> dict:
        """Start to measure servers of this host; return ``{"job": id}``.

        ``max_wait_seconds``: how long the batch lets a server wait for a quiet moment; above 0
        servers are followed until their period shows. Reading ends after about ``seconds`` (0: no
        limit) with what it has; the next job goes on.
        """
        return self._call(ctxt, host, "start_measure", batch_id=batch_id, servers=servers,
                          windows_seconds=windows_seconds, max_wait_seconds=max_wait_seconds,
                          seconds=seconds)

    def get_measure(self, ctxt, host: str, job: str, offset: int = 0) -> dict:
        """Return a job's state and, once it is done, up to 50 ServerTelemetry from ``offset`` on.

        With the last of them, when ``next_offset`` is null, comes ``host``: what they have in
        common, as the fields of HostTelemetry are named (page_classes, mapped_classes, portions,
        confirmation, sketch).
        """
        return self._call(ctxt, host, "get_measure", job=job, offset=offset)

    def recall(self, ctxt, host: str, servers: list[str]) -> list[dict]:
        """Return the ServerTelemetry that is known of servers without measuring them."""
        return self._call(ctxt, host, "recall", servers=servers)

    def bandwidth(self, ctxt, host: str) -> dict:
        """Return the Bandwidth of the host's migration link."""
        return self._call(ctxt, host, "bandwidth")

    def tune(self, ctxt, host: str, server: str, bytes_per_second: int | None = None,
             downtime_ms: int | None = None) -> None:
        """Set what a server's migration may send, running or about to begin, at its source.

        Bytes of payload per second, QEMU's own overshoot taken out; 0 lifts the cap. The allowed
        downtime can be set while the migration runs.
        """
        self._call(ctxt, host, "tune", server=server, bytes_per_second=bytes_per_second,
                   downtime_ms=downtime_ms)

    def progress(self, ctxt, host: str, servers: list[str]) -> dict[str, dict | None]:
        """Return counters of running migrations, at their source, by server; None without one."""
        return self._call(ctxt, host, "progress", servers=servers)

    def completed(self, ctxt, host: str, server: str) -> dict | None:
        """Return figures of a server's last migration, at its destination; None without one."""
        return self._call(ctxt, host, "completed", server=server)

    def presence(self, ctxt, host: str, server: str) -> dict:
        """Return whether the domain is on this host, in which state, and whether it migrates."""
        return self._call(ctxt, host, "presence", server=server)

    def relay(self, ctxt, host: str) -> dict | None:
        """Return name, address, port and memory of the host's relay; None where there is none."""
        return self._call(ctxt, host, "relay")

    def open_group(self, ctxt, host: str, group: dict) -> None:
        """Open a group at one of its ends (relay.values.Group); first at the destination.

        AgentRefused with the relay's reason; nothing is redirected then.
        """
        self._call(ctxt, host, "open_group", group=group)

    def close_group(self, ctxt, host: str, group_id: str) -> dict:
        """Close a group; return its statistics at its source, else an empty dict. Repeatable."""
        return self._call(ctxt, host, "close_group", group_id=group_id)

    def leave_group(self, ctxt, host: str, group_id: str, server: str) -> None:
        """Let the further connections of a server of an open group go the plain way."""
        self._call(ctxt, host, "leave_group", group_id=group_id, server=server)

    def limit_group(self, ctxt, host: str, group_id: str, bytes_per_second: float | None) -> None:
        """Cap the wire bytes of an open group at its source; None for no cap."""
        self._call(ctxt, host, "limit_group", group_id=group_id,
                   bytes_per_second=bytes_per_second)

    def relay_statistics(self, ctxt, host: str) -> dict:
        """Return the statistics of all open groups that leave the host."""
        return self._call(ctxt, host, "relay_statistics")

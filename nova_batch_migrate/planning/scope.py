"""Whose content may stand for whose: the parts that dedup_scope makes of a host's servers.

Used by grouping and replay. Never looks at content.
"""

from collections.abc import Sequence

from nova_batch_migrate.planning.telemetry import ServerTelemetry


class Scope:
    """The parts of a host within which common content may be sent once."""

    def __init__(self, dedup_scope: str, servers: Sequence[ServerTelemetry]):
        self.dedup_scope = dedup_scope
        self.by_project = dedup_scope == "project"
        self._projects = {server.id: server.project_id for server in servers}

    def part(self, server_id: str) -> str:
        """Return the name of the server's part; content is shared inside of it only."""
        if self.dedup_scope == "host":
            return ""
        return self._projects[server_id] if self.by_project else server_id

"""Neutron's API as healing needs it: where the ports of a server are bound. Reads only."""

from nova_batch_migrate.clients import base


class NeutronClient(base.ServiceClient):
    """Neutron as the service user of ``[neutron]``, by default that of ``[nova]``.

    Errors as NovaClient's.
    """

    group = "neutron"
    service_type = "network"

    def _microversion(self, newest: tuple[int, int] | None) -> None:
        return None

    def port_hosts(self, server_id: str) -> set[str]:
        """Return the hosts to which the server's ports are bound; empty without ports."""
        body = self._get(f"list the ports of server {server_id}", "/ports",
                         {"device_id": server_id})
        return {port["binding:host_id"] for port in body["ports"] if port.get("binding:host_id")}

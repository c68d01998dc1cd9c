"""One request as a handler sees it, and the answers a handler gives.

The application makes a Call per request; handlers take it as their only window to the world.
"""

import dataclasses

import webob
from oslo_serialization import jsonutils

from nova_batch_migrate import context
from nova_batch_migrate.api import services


@dataclasses.dataclass(frozen=True)
class Call:
    """``base_url`` is the address of the collection as the caller wrote it, project included."""

    request: webob.Request
    context: context.RequestContext | None
    services: services.Services
    base_url: str

    def authorize(self, rule: str) -> None:
        """Raise Forbidden unless the caller may do what ``rule`` is about."""
        self.services.enforcer.authorize(self.context, rule)

    @property
    def conductor(self):
        """The RPC client; raises ConductorUnavailable where the bus is out of reach."""
        return self.services.conductor_link.client()

    @property
    def max_limit(self) -> int:
        return self.services.conf.api.max_limit


def respond(code: int, body: dict | None = None, location: str | None = None) -> webob.Response:
    """Return a JSON answer; without ``body`` an empty one."""
    response = webob.Response(status=code)
    if body is not None:
        response.content_type = "application/json"
        response.charset = "UTF-8"
        response.body = jsonutils.dump_as_bytes(body)
    if location:
        response.location = location
    return response

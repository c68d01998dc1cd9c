"""The caller's identity as it travels from the API over RPC into log lines and events."""

from oslo_context import context


class RequestContext(context.RequestContext):
    """oslo's context; its dictionary form is what RPC carries."""

    @classmethod
    def from_nova(cls, nova_context) -> "RequestContext":
        """Copy the identity out of ``environ['nova.context']``."""
        values = nova_context.to_dict()
        return cls(
            user_id=values.get("user_id"),
            project_id=values.get("project_id"),
            user_domain_id=values.get("user_domain_id") or values.get("user_domain"),
            project_domain_id=values.get("project_domain_id") or values.get("project_domain"),
            roles=values.get("roles") or [],
            is_admin_project=values.get("is_admin_project", True),
            system_scope=values.get("system_scope"),
            request_id=values.get("request_id"),
            global_request_id=values.get("global_request_id"),
        )


def service_context(request_id: str | None = None) -> RequestContext:
    """Return the context of a service acting by itself, under the request id it works for."""
    return RequestContext(request_id=request_id, overwrite=False)

"""The compute adapter with this API's version in its header.

Called by the resources of this package on every request. It never opens a session of its own:
endpoint, credentials and the operator's compute microversion are those of the adapter it wraps.
"""

from typing import Any

import requests
from keystoneauth1 import adapter

API_VERSION = "1.0"
_HEADER = "OpenStack-API-Version"
# A request that hangs for good would hang an operator's --wait with it.
_TIMEOUT_SECONDS = 60


class VersionedAdapter(adapter.Adapter):
    """Ask for ``batch-migration 1.0`` beside whatever compute microversion the operator set.

    Nova and this API share one header; its value is a list, and each side reads its own entry.
    keystoneauth only fills the header in when it is absent, so both entries are written here.
    """

    def __init__(self, compute: adapter.Adapter):
        super().__init__(session=compute, default_microversion=compute.default_microversion)

    def request(self, url: str, method: str, **kwargs: Any) -> requests.Response:
        """Send one request through the compute adapter and return its response."""
        microversion = kwargs.get("microversion") or self.default_microversion
        wanted = f"batch-migration {API_VERSION}"
        if microversion:
            wanted = f"compute {microversion}, {wanted}"
        kwargs["headers"] = {_HEADER: wanted, **(kwargs.get("headers") or {})}
        if getattr(self.session.session, "timeout", None) is None:
            kwargs.setdefault("timeout", _TIMEOUT_SECONDS)
        return super().request(url, method, **kwargs)

    def _get_connection(self):
        # openstack.resource.Resource.list() asks its session for this.
        return self.session._get_connection()

"""Client of nova-batch-conductor; the only thing the API knows of the conductor."""

from __future__ import annotations  # a method here is called list

from nova_batch_migrate import rpc


class ConductorAPI:
    """Calls to any conductor.

    1.0 - initial version. Every method raises the exceptions of ``nova_batch_migrate.exception``
    and ``oslo_messaging.MessagingTimeout`` when no conductor answers within ``timeout`` seconds.
    """

    def __init__(self, conf, transport=None):
        self._client = rpc.get_client(transport or rpc.get_transport(conf), rpc.conductor_target(),
                                      conf.api.conductor_timeout_seconds)

    def create(self, ctxt, request: dict) -> dict:
        """Check names against Nova, commit the batch, return it."""
        return self._client.call(ctxt, "create", request=request)

    def get(self, ctxt, batch_id: str) -> dict:
        """Return one batch with its servers."""
        return self._client.call(ctxt, "get", batch_id=batch_id)

    def list(self, ctxt, filters: dict, limit: int | None, marker: str | None) -> list[dict]:
        """Return batches without their servers, newest first; filters: status, host."""
        return self._client.call(ctxt, "list", filters=filters, limit=limit, marker=marker)

    def plan(self, ctxt, batch_id: str, whole: bool = True) -> dict:
        """Return the current plan; ``whole``: with the telemetry it was made from."""
        return self._client.call(ctxt, "plan", batch_id=batch_id, whole=whole)

    def commonality(self, ctxt, batch_id: str) -> dict:
        """Return the chart of FIG. 3 [0047]."""
        return self._client.call(ctxt, "commonality", batch_id=batch_id)

    def events(self, ctxt, batch_id: str, limit: int | None, marker: int | None) -> list[dict]:
        """Return what happened, oldest first."""
        return self._client.call(ctxt, "events", batch_id=batch_id, limit=limit, marker=marker)

    def action(self, ctxt, batch_id: str, action: str, params: dict) -> dict:
        """Note an operator's wish (start, pause, resume, abort, replan); return the batch."""
        return self._client.call(ctxt, "action", batch_id=batch_id, action=action, params=params)

    def delete(self, ctxt, batch_id: str) -> None:
        """Forget a batch that is not active."""
        self._client.call(ctxt, "delete", batch_id=batch_id)

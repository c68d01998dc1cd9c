"""Changes of a batch's row that several steps make; only the holder of its lease makes them.

Used by reconciler, sources, groups and gangs.
"""

from oslo_utils import timeutils

from nova_batch_migrate.db import api as db


def save(batch: dict, **changes) -> None:
    """Change keys of the batch's free-form state."""
    batch["state"] = batch["state"] | changes
    db.update_batch(batch["id"], {"state": batch["state"]})


def set_status(ctxt, batch: dict, status: str) -> None:
    """Let the batch be in another status; the first time that it runs is its start."""
    values = {"status": status}
    if status == "running" and batch["started_at"] is None:
        values["started_at"] = timeutils.utcnow()
        db.add_event(batch["id"], "started", "the migrations begin",
                     request_id=ctxt.request_id)
    batch.update(values)
    db.update_batch(batch["id"], values)

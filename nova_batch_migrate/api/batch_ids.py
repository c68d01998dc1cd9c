"""Which words can be the id of a batch migration; handlers ask before they trouble a conductor."""

from oslo_utils import uuidutils

from nova_batch_migrate import exception


def check(batch_id: str) -> None:
    """Raise BatchNotFound for what can't be an id of ours."""
    if not uuidutils.is_uuid_like(batch_id):
        raise exception.BatchNotFound(batch_id=batch_id)

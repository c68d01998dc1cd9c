"""The versions of this API; asked for without a policy, as Nova's are."""

from nova_batch_migrate.api import microversion
from nova_batch_migrate.api.call import Call, respond


def index(call: Call):
    """Show which versions there are and where the API is."""
    return document(call.base_url)


def document(base_url: str):
    """Return the answer; the stand-alone application gives it at its root to everybody."""
    return respond(200, {"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": microversion.MINIMUM,
        "max_version": microversion.MAXIMUM,
        "links": [{"rel": "self", "href": base_url}],
    }]})

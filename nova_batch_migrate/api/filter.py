"""The paste filter of nova-api, mounted right before ``osapi_compute_app_v21``.

Nova's paste file names it. A path outside our own prefix goes on with the very environ it came
with; this module never imports Nova.
"""

import re

from oslo_log import log

from nova_batch_migrate import context
from nova_batch_migrate.api import application, routes, services

LOG = log.getLogger(__name__)


def filter_factory(global_conf, **local_conf):
    """Return a filter for one pipeline; ``config_file`` names our files, comma-separated.

    Without it the default file is read where it exists. A named file that is missing raises:
    nova-api then refuses to start and says which.
    """
    files = [name for name in re.split(r"[,\s]+", local_conf.get("config_file", "")) if name]
    shared = services.of_process(tuple(files) or None)
    return lambda nova: Filter(nova, application.Application(shared, identify))


class Filter:
    """Passes our prefix to ``own`` and all else to ``nova``."""

    def __init__(self, nova, own):
        self._nova = nova
        self._own = own

    def __call__(self, environ, start_response):
        if routes.split(environ.get("PATH_INFO", "")) is None:
            return self._nova(environ, start_response)
        return self._own(environ, start_response)


def identify(environ: dict) -> context.RequestContext | None:
    """Return the caller that Nova's pipeline has found.

    Never from headers: before keystonemiddleware they are whatever the client wrote.
    """
    nova_context = environ.get("nova.context")
    if nova_context is None:
        LOG.error("there is no nova.context in the environ: in Nova's paste file the filter must "
                  "stand after keystonecontext, right before osapi_compute_app_v21")
        return None
    return context.RequestContext.from_nova(nova_context)

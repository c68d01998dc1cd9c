"""nova-batch-api for any WSGI server: ``uwsgi --module nova_batch_migrate.wsgi.api:application``.

For clouds whose nova-api can't be changed: the same application behind keystonemiddleware. It is
built at the first request, so that a server which forks afterwards shares no connection.
"""

import functools
import threading

import webob
from keystonemiddleware import auth_token
from oslo_log import log
from oslo_middleware import http_proxy_to_wsgi, request_id, sizelimit

from nova_batch_migrate import conf as own_conf
from nova_batch_migrate import context
from nova_batch_migrate.api import application as api
from nova_batch_migrate.api import faults, microversion, routes, services
from nova_batch_migrate.api.handlers import versions

# so that a proxy can hand over paths of the compute endpoint as they are
NOVA_ROOTS = ("/v2.1", "/v2")
_building = threading.Lock()


def build(conf):
    """Return the application over a parsed ``conf``, all middleware included."""
    guarded = auth_token.AuthProtocol(
        api.Application(services.Services(conf), identify), {"oslo_config_config": conf})
    app = Root(guarded)
    for middleware in (sizelimit.RequestBodySizeLimiter, request_id.RequestId,
                       http_proxy_to_wsgi.HTTPProxyToWSGI):
        app = middleware(app, conf)
    return app


class Root:
    """Answers outside the prefix, where nobody needs a token, and asks for one inside."""

    def __init__(self, guarded):
        self._guarded = guarded

    def __call__(self, environ, start_response):
        for root in NOVA_ROOTS:
            if environ["PATH_INFO"].startswith(f"{root}/"):
                environ = {**environ, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + root,
                           "PATH_INFO": environ["PATH_INFO"].removeprefix(root)}
                break
        if routes.split(environ["PATH_INFO"]) is not None:
            return self._guarded(environ, start_response)
        request = webob.Request(environ)
        if environ["PATH_INFO"] in ("", "/"):
            response = versions.document(request.application_url + routes.PREFIX)
        else:
            response = faults.fault(404, f"There is only {routes.PREFIX} here.")
        microversion.stamp(response, microversion.MINIMUM)
        return response(environ, start_response)


def identify(environ: dict) -> context.RequestContext | None:
    """Return the caller that keystonemiddleware has found; it removes what a client forges."""
    if environ.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
        return None
    return context.RequestContext.from_environ(environ)


@functools.cache
def _built():
    own_conf.parse(own_conf.CONF, [])
    log.setup(own_conf.CONF, "nova-batch-api")
    return build(own_conf.CONF)


def application(environ, start_response):
    """Serve one request with the configuration of the default file."""
    with _building:
        app = _built()
    return app(environ, start_response)

"""The WSGI application behind the prefix: version, route, caller, handler, fault.

The filter and the stand-alone form call it with paths that :mod:`routes` has found to be ours.
Nothing that happens inside leaves it as an exception.
"""

from collections.abc import Callable

import webob
import webob.exc
from oslo_log import log

from nova_batch_migrate import context
from nova_batch_migrate.api import call, faults, microversion, routes, services

LOG = log.getLogger(__name__)
Identify = Callable[[dict], context.RequestContext | None]


class Application:
    """``identify`` takes the caller out of the environ, None where nobody vouched for one."""

    def __init__(self, shared: services.Services, identify: Identify):
        self._services = shared
        self._identify = identify

    def __call__(self, environ, start_response):
        request = webob.Request(environ)
        version = microversion.MINIMUM
        caller = self._identify(environ)
        try:
            version = microversion.negotiate(request.headers.get(microversion.HEADER))
            response = self._handle(request, caller)
        except Exception as error:
            response = self._fault(error, caller)
        microversion.stamp(response, version)
        return response(environ, start_response)

    def _handle(self, request: webob.Request, caller) -> webob.Response:
        # not request.path_info: it fails on bytes that aren't UTF-8
        project_id, path = routes.split(request.environ["PATH_INFO"])
        if caller is None:
            raise webob.exc.HTTPUnauthorized("No identity came with the request. Send a valid "
                                             "token in X-Auth-Token.")
        if project_id is not None and project_id != caller.project_id:
            raise webob.exc.HTTPBadRequest(
                f"The URL names the project {project_id}, the token is for {caller.project_id}. "
                "Leave the project out of the URL, or use a token for it.")
        handler, arguments = routes.match(request.method, path)
        return handler(call.Call(request, caller, self._services, base_url(request)), **arguments)

    def _fault(self, error: Exception, caller) -> webob.Response:
        request_id = caller.request_id if caller else None
        response = faults.answer(error, request_id,
                                 self._services.conf.api.conductor_timeout_seconds)
        if response is None:
            LOG.error("unexpected error in request %s", request_id, exc_info=error)
            return faults.internal(request_id)
        LOG.info("request %s answered %s: %s", request_id, response.status, error)
        return response


def base_url(request: webob.Request) -> str:
    """Return the address of the collection, with the project where the caller wrote one."""
    project_id, _ = routes.split(request.environ["PATH_INFO"])
    project = f"/{project_id}" if project_id else ""
    return f"{request.application_url}{project}{routes.PREFIX}"

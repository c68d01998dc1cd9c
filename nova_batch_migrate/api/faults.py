"""Turns errors into answers of Nova's form: ``{"badRequest": {"code": 400, "message": ...}}``.

The application calls it; it is the only place where an error becomes HTTP.
"""

import oslo_messaging as messaging
import webob
import webob.exc
from oslo_serialization import jsonutils

from nova_batch_migrate import exception

NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    503: "serviceUnavailable",
}
OTHERWISE = "computeFault"
BUS_ERRORS = (messaging.MessagingTimeout, messaging.MessageDeliveryFailure)
RETRY_AFTER_SECONDS = 10


def answer(error: Exception, request_id: str | None, timeout_seconds: int) -> webob.Response | None:
    """Return the answer to ``error``, None for an error that nobody foresaw."""
    if isinstance(error, webob.exc.HTTPException):
        kept = {name: value for name, value in error.headers.items() if name in ("Allow",)}
        return fault(error.status_int, error.detail or error.explanation, kept)
    if isinstance(error, BUS_ERRORS):
        error = exception.ConductorUnavailable(seconds=timeout_seconds)
    if not isinstance(error, exception.BatchMigrateError):
        return None
    if error.code == 500:
        return internal(request_id)
    # not str(): oslo.messaging adds the conductor's traceback to it
    return fault(error.code, error.text)


def internal(request_id: str | None) -> webob.Response:
    """Return the answer that tells nothing of what happened inside."""
    return fault(500, "The request met an unexpected error. An administrator finds it in the logs "
                 f"of the API and of nova-batch-conductor under the request id {request_id}.")


def fault(code: int, message: str, headers: dict[str, str] | None = None) -> webob.Response:
    """Return a response with ``message`` in the form of Nova's faults."""
    response = webob.Response(
        status=code, content_type="application/json", charset="UTF-8",
        body=jsonutils.dump_as_bytes({NAMES.get(code, OTHERWISE): {"code": code,
                                                                   "message": message}}))
    response.headers.update(headers or {})
    if code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response

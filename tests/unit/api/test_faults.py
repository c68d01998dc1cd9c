import json

import ddt
import oslo_messaging as messaging
import webob.exc
from oslo_messaging._drivers import common as driver_common
from oslotest import base

from nova_batch_migrate import exception, rpc
from nova_batch_migrate.api import faults


def over_rpc(error):
    """Return ``error`` as oslo.messaging raises it at the caller's side."""
    try:
        raise error
    except exception.BatchMigrateError:
        import sys
        data = driver_common.serialize_remote_exception(sys.exc_info())
    return driver_common.deserialize_remote_exception(data, rpc.REMOTE_EXCEPTION_MODULES)


@ddt.ddt
class AnswerTest(base.BaseTestCase):
    @ddt.data(
        (exception.InvalidInput(reason="r"), 400, "badRequest"),
        (exception.FieldNotSupported(field="f", value=1, supported="2"), 400, "badRequest"),
        (exception.HostNotFound(host="h"), 400, "badRequest"),
        (exception.ServerNotFound(server="s"), 400, "badRequest"),
        (exception.Forbidden(action="a"), 403, "forbidden"),
        (exception.BatchNotFound(batch_id="b"), 404, "itemNotFound"),
        (exception.BatchConflict(reason="r"), 409, "conflictingRequest"),
        (exception.InvalidBatchState(batch_id="b", status="s", action="a", allowed="l"), 409,
         "conflictingRequest"),
        (exception.NovaPermanentError(operation="o", reason="r"), 502, "computeFault"),
        (exception.AgentUnavailable(host="h"), 503, "serviceUnavailable"),
    )
    @ddt.unpack
    def test_our_errors_here_and_over_rpc(self, error, code, name):
        for raised in (error, over_rpc(error)):
            response = faults.answer(raised, "req-1", 10)
            self.assertEqual(code, response.status_int)
            self.assertEqual({name: {"code": code, "message": error.args[0]}}, response.json)
            self.assertEqual("10" if code == 503 else None, response.headers.get("Retry-After"))

    def test_no_traceback_of_the_conductor(self):
        raised = over_rpc(exception.HostNotFound(host="cmp9"))
        self.assertIn("Traceback", str(raised))
        self.assertNotIn("Traceback", faults.answer(raised, "req-1", 10).text)

    @ddt.data(messaging.MessagingTimeout("t"), messaging.MessageDeliveryFailure("d"))
    def test_no_conductor(self, error):
        response = faults.answer(error, "req-1", 7)
        self.assertEqual(503, response.status_int)
        self.assertEqual("10", response.headers["Retry-After"])
        self.assertIn("within 7 seconds", response.json["serviceUnavailable"]["message"])

    @ddt.data(
        (webob.exc.HTTPMethodNotAllowed("m", headers={"Allow": "GET"}), 405, "badMethod", "m"),
        (webob.exc.HTTPNotAcceptable("n"), 406, "computeFault", "n"),
        (webob.exc.HTTPUnsupportedMediaType("u"), 415, "badMediaType", "u"),
        (webob.exc.HTTPRequestEntityTooLarge(), 413, "overLimit", "body of your request"),
    )
    @ddt.unpack
    def test_http_errors(self, error, code, name, words):
        response = faults.answer(error, "req-1", 10)
        self.assertEqual(code, response.json[name]["code"])
        self.assertIn(words, response.json[name]["message"])
        self.assertEqual("GET" if code == 405 else None, response.headers.get("Allow"))

    def test_500_tells_the_request_id_and_nothing_else(self):
        response = faults.answer(exception.PlanningError(reason="secret"), "req-1", 10)
        message = json.loads(response.text)["computeFault"]["message"]
        self.assertEqual(500, response.status_int)
        self.assertIn("req-1", message)
        self.assertNotIn("secret", message)

    def test_unforeseen_errors_are_left_to_the_caller(self):
        self.assertIsNone(faults.answer(KeyError("x"), "req-1", 10))

import http.client
import json
import queue
import threading

import fixtures
from oslotest import base

from nova_batch_migrate.cmd import api


def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"path": environ["PATH_INFO"]}).encode()]


class ApiServiceTest(base.BaseTestCase):
    def start(self, app):
        service = api.ApiService(app, "127.0.0.1", 0)
        service.start()
        self.addCleanup(service.stop)
        return service.port

    def get(self, port, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def test_serves_and_logs(self):
        lines = queue.Queue()
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.cmd.api.LOG.info", lambda text, *args: lines.put(text % args)))
        self.assertEqual({"path": "/x"}, self.get(self.start(echo), "/x"))
        # written when the answer is out already
        self.assertIn('"GET /x HTTP/1.1" 200', lines.get(timeout=30))

    def test_a_request_that_hangs_delays_no_other(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/hang":
                release.wait(30)
            return echo(environ, start_response)
        port = self.start(app)
        hanging = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.addCleanup(hanging.close)
        hanging.request("GET", "/hang")
        self.assertEqual({"path": "/x"}, self.get(port, "/x"))
        self.assertFalse(release.is_set())

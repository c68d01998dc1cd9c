"""nova-batch-api: the API alone, on the standard library's WSGI server with a thread per request.

Enough for a few operators; ``nova_batch_migrate.wsgi.api`` is for uwsgi and its like.
"""

import socketserver
import sys
import threading
from wsgiref import simple_server

from oslo_log import log

from nova_batch_migrate import service
from nova_batch_migrate.wsgi import api

LOG = log.getLogger(__name__)


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """A request that hangs delays nobody else, not even the end of the process."""

    daemon_threads = True

    def server_bind(self):
        # the stock method asks DNS for this machine's name and may wait long for it
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self.setup_environ()


class Handler(simple_server.WSGIRequestHandler):
    """Logs like the rest of the service and gives up on clients that don't speak."""

    timeout = 60

    def log_message(self, format, *args):
        LOG.info("%s " + format, self.client_address[0], *args)


class ApiService:
    """Serves ``app`` at ``address``:``port`` until it is stopped; port 0 picks a free one."""

    def __init__(self, app, address: str, port: int):
        self._server = simple_server.make_server(
            address, port, app, server_class=Server, handler_class=Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="api")

    @property
    def port(self) -> int:
        return self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def main(argv: list[str] | None = None) -> None:
    """Run the API alone until it is told to stop."""
    conf = service.prepare(sys.argv[1:] if argv is None else argv, "nova-batch-api")
    service.run(ApiService(api.build(conf), conf.api.listen_address, conf.api.listen_port))

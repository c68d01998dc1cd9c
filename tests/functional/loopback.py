"""WSGI applications of the in-process cloud on real sockets of 127.0.0.1.

The base class serves Nova's and Placement's APIs with it, so that this project's clients speak HTTP
as they do in a real cloud. It never listens on any other address.
"""

import socketserver
import threading
from wsgiref import simple_server

import fixtures


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True

    def server_bind(self):
        # The stock method looks the host name up in DNS, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self.setup_environ()


class _QuietHandler(simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        """Say nothing: Nova's request log has every call already."""


def _with_headers(app, headers: dict[str, str]):
    """Return ``app`` behind the identity that an auth middleware would have put on each request."""
    given = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}

    def wrapped(environ, start_response):
        for name, value in given.items():
            environ.setdefault(name, value)
        return app(environ, start_response)

    return wrapped


class LoopbackServer(fixtures.Fixture):
    """Serve ``app``; ``url`` is its address. ``headers`` are added where a request has none."""

    def __init__(self, app, headers: dict[str, str] | None = None):
        self._app = _with_headers(app, headers or {})

    def _setUp(self):
        server = simple_server.make_server(
            "127.0.0.1", 0, self._app, server_class=_Server, handler_class=_QuietHandler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05},
                                  daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

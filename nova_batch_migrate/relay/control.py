"""How the agent steers the relay: one line of JSON asks, one answers, on a Unix socket.

The server runs in nova-batch-relay, the client in nova-batch-agent. Who may open the socket is a
matter of its group and mode; nothing that crosses it is logged, the tokens of groups are in it.
"""

import grp
import json
import os
import pathlib
import socket
import socketserver
import threading

from oslo_log import log

from nova_batch_migrate import exception

LOG = log.getLogger(__name__)
_LINE_BYTES = 16 << 20
#: Opening a group reaches another host's relay.
_TIMEOUT_SECONDS = 40
_COMMANDS = ("hello", "open_group", "close_group", "leave_group", "limit",
             "statistics")


class Server:
    """Answers on the control socket; ``relay`` has a method for every command."""

    def __init__(self, path: str, group: str | None, relay):
        self._path = pathlib.Path(path)
        self._group = group
        self._relay = relay
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def start(self) -> None:
        """Make the socket, for this user and the group only, and answer in threads."""
        relay = self._relay

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline(_LINE_BYTES):
                    self.wfile.write(json.dumps(_answer(relay, line)).encode() + b"\n")

        self._path.parent.mkdir(parents=True, exist_ok=True)
        # left by a relay that was killed; a second one fails at its ports
        self._path.unlink(missing_ok=True)
        before = os.umask(0o117)
        try:
            self._server = socketserver.ThreadingUnixStreamServer(str(self._path), Handler)
        finally:
            os.umask(before)
        self._server.daemon_threads = True
        if self._group:
            os.chown(self._path, -1, grp.getgrnam(self._group).gr_gid)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer no more and take the socket away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._path.unlink(missing_ok=True)


def _answer(relay, line: bytes) -> dict:
    try:
        asked = json.loads(line)
        command = asked["command"]
        if command not in _COMMANDS:
            raise ValueError(f"no command {command!r}")
        return {"result": getattr(relay, command)(*asked.get("arguments", []))}
    except exception.RelayError as error:
        return {"error": error.kwargs.get("reason") or error.text}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"the agent asked for nothing that is known: {error}"}
    except Exception as error:
        # the agent waits for a line; the relay goes on for its other groups
        LOG.exception("a command failed")
        return {"error": f"the relay failed: {error}"}


class Client:
    """Asks the relay of this host; a connection per question."""

    def __init__(self, path: str):
        self._path = path

    def hello(self) -> dict:
        """Return version, name, port, groups, speed and memory of the relay."""
        return self._ask("hello")

    def open_group(self, group: dict) -> dict:
        """Open a group (values.Group as a dict)."""
        return self._ask("open_group", group)

    def close_group(self, group_id: str) -> dict:
        """Close a group; return its statistics, empty where it was not open or came in."""
        return self._ask("close_group", group_id)

    def leave_group(self, group_id: str, server_id: str) -> dict:
        """Let the further connections of a server of a group go the plain way.

        One that is to move with others is counted out of its set, and none of them passes.
        """
        return self._ask("leave_group", group_id, server_id)

    def limit(self, group_id: str, bytes_per_second: float | None) -> dict:
        """Change the cap on a group's wire bytes; None for none."""
        return self._ask("limit", group_id, bytes_per_second)

    def statistics(self) -> dict:
        """Return the statistics of all open groups that leave this host."""
        return self._ask("statistics")

    def _ask(self, command: str, *arguments):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TIMEOUT_SECONDS)
                connection.connect(self._path)
                connection.sendall(json.dumps(
                    {"command": command, "arguments": arguments}).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    told = json.loads(lines.readline(_LINE_BYTES) or b"{}")
        except (OSError, ValueError) as error:
            raise exception.RelayUnavailable(socket=self._path) from error
        if "error" in told:
            raise exception.RelayError(reason=told["error"])
        if "result" not in told:
            raise exception.RelayUnavailable(socket=self._path)
        return told["result"]

"""A QEMU's monitor: one command, one answer, over its unix socket.

Used by guest and migration. Events are dropped; whoever needs them asks again.
"""
import json
import pathlib
import socket
import time


class QmpError(Exception):
    """QEMU refused a command, or is gone."""


class Qmp:
    """A connection to one QEMU."""

    def __init__(self, path: pathlib.Path, wait_seconds: float = 20):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        end = time.monotonic() + wait_seconds
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise QmpError(f"no QEMU answers at {path}: {error}") from None
                time.sleep(0.02)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments):
        """Run a command (argument names with _ for -) and return its answer."""
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._file.write(json.dumps({"execute": command, "arguments": words}) + "\n")
            self._file.flush()
            while line := self._file.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"{command}: {answer['error']['desc']}")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        raise QmpError(f"{command}: QEMU has closed its monitor")

    def close(self) -> None:
        """Drop the connection."""
        self._file.close()
        self._socket.close()

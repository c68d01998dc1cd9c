"""A QEMU's monitor: one command, one answer, over its unix socket.

Used by guest and migration. Events that came before an answer are kept.
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
        #: (name, seconds since the epoch by QEMU's clock)
        self.events: list[tuple[str, float]] = []
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
                if "event" in answer:
                    stamp = answer["timestamp"]
                    self.events.append((answer["event"],
                                        stamp["seconds"] + stamp["microseconds"] / 1e6))
                if "error" in answer:
                    raise QmpError(f"{command}: {answer['error']['desc']}")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        raise QmpError(f"{command}: QEMU has closed its monitor")

    def event(self, name: str) -> float | None:
        """Return when an event came last, None if it did not."""
        self.execute("query-status")
        times = [seconds for each, seconds in self.events if each == name]
        return times[-1] if times else None

    def close(self) -> None:
        """Drop the connection."""
        self._file.close()
        self._socket.close()

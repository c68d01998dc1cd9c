"""Two relays of two hosts on one machine, for tests in a namespace of their own (namespace.py).

The redirect, the certificates, the channel and the attribution are the real ones; QEMU at the
destination is qemu.py, at the source the test.
"""

import contextlib
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types

from nova_batch_migrate import conf
from nova_batch_migrate.relay import service
from tests.unit.relay import qemu

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import certificates  # noqa: E402

SOURCE, DESTINATION = "cmpa", "cmpb"
#: The destination's address: its relay and its QEMUs are there.
ADDRESS, ADDRESS6 = "10.9.9.2", "fd09::2"
RELAY_PORT = 49300
DICTIONARY_BYTES = 64 << 20
#: What a step may take on a machine that has better things to do.
SECONDS = 90
FIRST, SECOND, STRANGER = (
    f"0f6c4ba5-1b52-4d0f-8e25-6a2d3a2c3d{number:02d}" for number in (1, 2, 3))


def wait_for(is_so) -> bool:
    """Return whether a condition came to hold, within the time that a step may take."""
    end = time.monotonic() + SECONDS
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def settled(measure, seconds: float = 0.7):
    """Return what a measure gives once it is not 0 and has stayed the same for so long."""
    last, since = 0, time.monotonic()

    def stays() -> bool:
        nonlocal last, since
        now = measure()
        if now != last:
            last, since = now, time.monotonic()
        return bool(last) and time.monotonic() - since > seconds
    wait_for(stays)
    return last


def relay(directory: pathlib.Path, host: str, address: str, redirect_port: int,
          certificate_name: str | None = None, **options) -> service.Relay:
    """Return a relay that is not started."""
    own, key = certificates.certificate(directory, certificate_name or host)
    made = conf.new()
    made([], default_config_files=[])
    made.set_override("host", host)
    for name, value in {
            "control_socket": str(directory / f"{host}.sock"), "control_group": "",
            "listen_address": address, "port": RELAY_PORT, "redirect_port": redirect_port,
            "ca_file": str(directory / "ca.pem"), "certificate_file": str(own),
            "key_file": str(key), "base_images_path": "", **options}.items():
        made.set_override(name, value, group="relay")
    return service.Relay(made)


@contextlib.contextmanager
def two(address=ADDRESS, **options):
    """Run a relay at a source and one at a destination, and give what an agent steers of each.

    Needs a namespace of its own.
    """
    add_address(address)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        source = relay(directory, SOURCE, "127.0.0.1", 49301, **options)
        destination = relay(directory, DESTINATION, address, 49411, **options)
        destination.start()
        source.start()
        yield types.SimpleNamespace(source=source.groups, destination=destination.groups,
                                    stop_destination=destination.stop, directory=directory,
                                    address=address)
        source.stop()
        destination.stop()


def add_address(address: str) -> None:
    """Give the loopback interface a destination's address."""
    bits = 128 if ":" in address else 32
    subprocess.run(["ip", "addr", "add", f"{address}/{bits}", "dev", "lo", "nodad"], check=True)


def group(role: str, token: str, **changes) -> dict:
    """Return what a conductor says to one end of a group of two servers."""
    return {
        "id": "batch:0:cmpb", "role": role, "token": token, "source": SOURCE,
        "destination": DESTINATION, "peer_address": ADDRESS, "peer_port": RELAY_PORT,
        "members": [{"server_id": FIRST, "order": 0, "scope": "project"},
                    {"server_id": SECOND, "order": 1, "scope": "project"}],
        "dictionary_bytes": DICTIONARY_BYTES, **changes}


def open_group(relays, **changes) -> None:
    """Open the group at both ends, the destination first."""
    token = secrets.token_hex(32)
    changes = {"peer_address": relays.address} | changes
    relays.destination.open_group(group("destination", token, **changes))
    relays.source.open_group(group("source", token, **changes))


def all_ended(relays, group_id: str = "batch:0:cmpb") -> None:
    """Wait until the source has done with a group's streams, which is behind their last byte."""
    wait_for(lambda: not relays.source._groups[group_id]._streams)


class Migration:
    """A QEMU at the destination, and the source's end of the connection to it."""

    def __init__(self, relays, server_id: str, port: int, *words: str):
        self.output = relays.directory / f"{server_id}.{port}"
        self.process, self.port = qemu.start(server_id, self.output, *words,
                                             address=relays.address, port=port)
        self.returned = b""
        try:
            self.connection = socket.create_connection((relays.address, port), timeout=SECONDS)
        except OSError:
            self.end()
            raise

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def finish(self) -> bytes:
        """End the stream, wait for the other side; return what came back."""
        self.connection.shutdown(socket.SHUT_WR)
        return self.drain()

    def drain(self) -> bytes:
        """Return what comes back until the end."""
        data = bytearray()
        while chunk := self.connection.recv(1 << 16):
            data += chunk
        self.process.wait(SECONDS)
        return bytes(data)

    def go_on(self) -> None:
        """Let a QEMU that stalls read on."""
        self.output.with_name(f"{self.output.name}.go").touch()

    def end(self) -> int:
        """End the QEMU, which may still await its connection; return how many bytes came."""
        self.process.kill()
        self.process.wait(SECONDS)
        return len(self.arrived()) if self.output.exists() else 0

    def arrived(self) -> bytes:
        return self.output.read_bytes()

    def started(self, data: bytes) -> threading.Thread:
        """Send and finish in a thread of its own."""
        def run():
            self.send(data)
            self.returned = self.finish()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

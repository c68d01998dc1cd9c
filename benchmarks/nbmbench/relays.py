"""Two real nova-batch-relay processes at the ends of a rig's link, steered as the agent does.

Called by the benchmarks of the relay. Certificates are of a CA of its own; nothing is wired into
Nova.
"""
import pathlib
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

from nbmlab import certificates, shell

from nbmbench import machine
from nbmbench.rig.link import ADDRESSES, DESTINATION, SOURCE
from nbmbench.rig.rig import Rig
from nova_batch_migrate import exception
from nova_batch_migrate.relay import control

PORT = 49300


class Relays:
    """The pair, for as long as its context; options are those of [relay]."""

    def __init__(self, rig: Rig, directory: pathlib.Path, **options):
        directory.mkdir(parents=True)
        self._directory = directory
        self._processes: dict[str, subprocess.Popen] = {}
        self._clients: dict[str, control.Client] = {}
        self._group = 0
        for side in (DESTINATION, SOURCE):
            own, key = certificates.certificate(directory, side)
            path = directory / f"{side}.sock"
            settings = {"control_socket": path, "control_group": "", "port": PORT,
                        "listen_address": ADDRESSES[side], "certificate_file": own,
                        "key_file": key, "ca_file": directory / "ca.pem", **options}
            conf = directory / f"{side}.conf"
            conf.write_text(f"[DEFAULT]\nhost = {side}\n[relay]\n" + "".join(
                f"{name} = {value}\n" for name, value in settings.items()))
            with (directory / f"{side}.log").open("wb") as log:
                self._processes[side] = rig.run(
                    side, sys.executable, "-c",
                    "from nova_batch_migrate.cmd import relay; relay.main()",
                    "--config-file", conf, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            self._clients[side] = control.Client(str(path))
        for side in self._clients:
            shell.wait_for(f"the relay at the {side}", 30, lambda side=side: self._answers(side))

    def __enter__(self) -> "Relays":
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()

    def _answers(self, side: str) -> bool:
        if self._processes[side].poll() is not None:
            raise shell.LabError(f"the relay at the {side} ended:\n{self.log(side)}")
        try:
            return bool(self._clients[side].hello())
        except exception.RelayUnavailable:
            return False

    def log(self, side: str) -> str:
        """Return the end of what a relay has logged."""
        return (self._directory / f"{side}.log").read_text()[-4000:]

    def open(self, members: Sequence[tuple[str, str | None]], **changes) -> str:
        """Open a group of (server id, scope) in their order at both ends; return its id."""
        self._group += 1
        group = {"id": f"bench:{self._group}", "token": secrets.token_hex(32), "source": SOURCE,
                 "destination": DESTINATION, "peer_address": ADDRESSES[DESTINATION],
                 "peer_port": PORT, "dictionary_bytes": 512 << 20,
                 "members": [{"server_id": server, "order": order, "scope": scope}
                             for order, (server, scope) in enumerate(members)], **changes}
        for side in (DESTINATION, SOURCE):
            self._clients[side].open_group(group | {"role": side})
        return group["id"]

    def close(self, group_id: str) -> dict:
        """Close a group and return its statistics."""
        told = self._clients[SOURCE].close_group(group_id)
        self._clients[DESTINATION].close_group(group_id)
        return told

    def cpu_seconds(self, side: str) -> float:
        """Return the CPU time that a relay has used."""
        return machine.cpu_seconds(self._processes[side].pid)

    def peak_memory_bytes(self, side: str) -> int:
        """Return the most memory that a relay has had until now."""
        return machine.peak_memory_bytes(self._processes[side].pid)

    def stop(self) -> None:
        """End both."""
        for process in self._processes.values():
            process.terminate()
        end = time.monotonic() + 10
        for process in self._processes.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

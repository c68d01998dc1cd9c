"""Guests of the rig measured by the agent's own code, as in production.

Used by benchmarks that plan. Stands where libvirt stands for the agent; reads guests through the
same code, in this process instead of a privileged one.
"""
import pathlib
import tempfile

from nbmlab import layout

from nbmbench.rig import Guest, Rig
from nbmbench.rig.guest import BINARY
from nova_batch_migrate import conf as configuration
from nova_batch_migrate import privsep
from nova_batch_migrate.agent import (
    bandwidth,
    domains,
    feedback,
    history,
    keys,
    measurement,
    sampler,
)
from nova_batch_migrate.agent.domain_xml import Definition
from nova_batch_migrate.conductor import measuring
from nova_batch_migrate.planning.telemetry import Bandwidth, ServerTelemetry


class Hypervisor:
    """What the agent asks libvirt, answered by the QEMUs' monitors."""

    def __init__(self, guests: list[Guest], directory: pathlib.Path):
        self._guests = {guest.spec.uuid: guest for guest in guests}
        self._directory = directory

    def domain(self, server_id: str) -> domains.Domain:
        """Return the guest as libvirt would describe it."""
        guest = self._guests[server_id]
        pid_file = self._directory / f"{guest.spec.name}.pid"
        pid_file.write_text(str(guest.pid))
        definition = Definition(
            virt_type="qemu", emulator=str(BINARY), name=guest.spec.name, project_id="",
            memory_bytes=guest.spec.memory_bytes,
            memory_blocks_bytes=(guest.spec.memory_bytes,), disks=())
        return domains.Domain(
            id=server_id, domain=guest.spec.name, vcpus=1, definition=definition,
            presence=self.presence(server_id), pid_file=str(pid_file))

    def presence(self, server_id: str) -> domains.Presence:
        """Return that it runs here and goes nowhere."""
        return domains.Presence(state="running", migrating=False, post_copy=False)

    def start_dirty_rate(self, server_id: str, seconds: int, mode: str,
                         samples_per_gib: int) -> None:
        """Start QEMU's page sampling, the only mode that is asked for by default."""
        self._guests[server_id].qmp.execute("calc-dirty-rate", calc_time=seconds)

    def dirty_rate_mib_s(self, server_id: str) -> int | None:
        """Return its answer, None while it samples."""
        told = self._guests[server_id].qmp.execute("query-dirty-rate")
        return told.get("dirty-rate") if told["status"] == "measured" else None


def measure(guests: list[Guest], max_wait_seconds: float = 0.0,
            secret: str | None = None, waited_for: bool = False) -> list[ServerTelemetry]:
    """Measure guests together, with the windows of a conductor's default configuration.

    With `max_wait_seconds` they are followed to find a period, as for a batch that waits so long;
    with a `secret` their contents are named, as where a deployment has one. `waited_for`: in the
    time that a conductor gives a batch that is about to move, without a limit as for a plan else.
    """
    privsep.memory_pctxt.set_client_mode(False)
    conf = _configuration()
    ids = [guest.spec.uuid for guest in guests]
    windows, seconds = list(conf.conductor.measure_windows_seconds), 0.0
    if waited_for:
        seconds = measuring.most_seconds(conf.conductor,
                                         sum(guest.spec.memory_bytes for guest in guests))
        windows = measuring.windows(windows, seconds)
    with tempfile.TemporaryDirectory() as directory:
        hypervisor = Hypervisor(guests, pathlib.Path(directory))
        parts = measurement.Parts(
            hypervisor, keys.KeySource(secret),
            sampler.Sampler(conf, hypervisor, history.Histories(None)), feedback.Feedback())
        values = measurement.measure(
            conf, parts, "benchmark", ids, windows, max_wait_seconds, seconds)[0]
    found = {value["id"]: ServerTelemetry.from_dict(value) for value in values}
    for server in found.values():
        if server.error:
            raise RuntimeError(f"{server.name or server.id} was not measured: {server.error}")
    return [found[server_id] for server_id in ids]


def link(rig: Rig, side: str) -> Bandwidth:
    """Return the link as the agent reads it at one end, with nobody else on it."""
    speed, source = rig.link.call(side, bandwidth.link_speed, _configuration(), "eth0")
    return Bandwidth("eth0", speed, bandwidth.goodput(speed, source, layout.MTU_BYTES), 0.0, source)


def _configuration():
    conf = configuration.new()
    conf([], project="nova-batch-migrate", default_config_files=[])
    conf.set_override("host", "source")
    return conf

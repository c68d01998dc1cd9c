"""The units as systemd runs them: what they forbid is what their services can do without."""

import ctypes
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import types

import requests
from oslo_config import cfg

from nova_batch_migrate import conf
from nova_batch_migrate.agent import scan
from nova_batch_migrate.relay import control
from tests.unit.agent import processes
from tests.unit.etc import booted
from tests.unit.relay import hosts, namespace, test_privileges

CONFIGURATION = "nova-batch-migrate.conf"
BUS = "transport_url = kombu+memory://\n"
HELPER = ("[nova_batch_memory]\nhelper_command = privsep-helper --config-file "
          f"{booted.CONFIGURED}/{CONFIGURATION}\n")
STATE = "/var/lib/nova-batch-migrate"
DESTINATION_UNIT = "nova-batch-relay-destination"
SECONDS = hosts.SECONDS


def _within(function):
    """Call a function of this module beside a systemd, in a network namespace of its own."""
    return namespace.run(_beside_systemd, function.__name__)


def _beside_systemd(name):
    return booted.run(globals()[name])


def _relays() -> dict:
    hosts.add_address(hosts.ADDRESS)
    directory = booted.CONFIGURED
    for unit, host, address, port in (
            ("nova-batch-relay", hosts.SOURCE, "127.0.0.1", 49301),
            (DESTINATION_UNIT, hosts.DESTINATION, hosts.ADDRESS, 49411)):
        own = f"{unit}.conf" if unit == DESTINATION_UNIT else CONFIGURATION
        booted.configure(own, (
            f"[DEFAULT]\nhost = {host}\n[relay]\ncontrol_socket = /run/{unit}/control.sock\n"
            f"listen_address = {address}\nport = {hosts.RELAY_PORT}\nredirect_port = {port}\n"
            f"certificate_file = {directory}/relay/{host}.pem\n"
            f"key_file = {directory}/relay/{host}.key\n"))
        _, key = hosts.certificates.certificate(directory / "relay", host)
        key.chmod(0o640)
        shutil.chown(key, "root", "nova-batch-relay")
    text = (booted.UNITS / "nova-batch-relay.service").read_text()
    booted.add_unit(f"{DESTINATION_UNIT}.service", text.replace(
        CONFIGURATION, f"{DESTINATION_UNIT}.conf").replace(
        "RuntimeDirectory=nova-batch-relay", f"RuntimeDirectory={DESTINATION_UNIT}"))
    units = DESTINATION_UNIT, "nova-batch-relay"
    pids = [booted.start(unit) for unit in units]
    clients = [control.Client(f"/run/{unit}/control.sock") for unit in units]
    seen = test_privileges.carry_two(
        types.SimpleNamespace(directory=pathlib.Path("/tmp"), address=hosts.ADDRESS), clients)
    seen["redirected"] = "redirect" in _nft("ruleset")
    booted.systemctl("reload", "nova-batch-relay")
    seen["reloaded"] = booted.main_pid("nova-batch-relay") == pids[1]
    booted.systemctl("stop", *units)
    seen["results"] = [booted.systemctl("show", "--value", "--property", "Result", unit)
                       for unit in units]
    seen["tables"] = _nft("tables")
    return seen


def _nft(what: str) -> str:
    return subprocess.run(["nft", "list", what], check=True, text=True, capture_output=True).stdout


def _agent() -> dict:
    booted.configure(CONFIGURATION, (
        f"[DEFAULT]\n{BUS}host = cmpa\n[agent_transport]\n{BUS}"
        f"[agent]\nlibvirt_uri = test:///default\n{HELPER}"))
    booted.start("nova-batch-agent")
    seen = {"helper": hosts.wait_for(
        lambda: "Spawned new privsep daemon" in booted.said("nova-batch-agent"))}
    # its privileged process ends with it, whatever it is asked just then
    seen["log"] = booted.said("nova-batch-agent")
    booted.systemctl("stop", "nova-batch-agent")
    with processes.Guest(user=test_privileges.QEMU_USER) as guest:
        guest.write({page: 1 + page % 5 for page in range(20)})
        # where libvirt has it; the unit has a /tmp of its own
        pid_file = shutil.copy(guest.pid_file, "/run/guest.pid")
        booted.configure("wanted.json", json.dumps(guest.wanted() | {"pid_file": pid_file}))
        # in the place of the agent: what it does with guest memory
        booted.add_unit("nova-batch-agent.service.d/look.conf", (
            "[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart="
            + booted.python("-m", __name__) + "\n"))
        booted.systemctl("start", "nova-batch-agent")
    return seen | json.loads(pathlib.Path(STATE, "seen.json").read_text())


def look() -> None:
    """Scan a guest through the privileged process, and try what the unit is to refuse."""
    cfg.CONF([], default_config_files=[str(booted.CONFIGURED / CONFIGURATION)])
    wanted = json.loads((booted.CONFIGURED / "wanted.json").read_text())
    counts, = scan.measure("job", [wanted], [0.1], {"seed": 7})["servers"]
    guest = int(pathlib.Path(wanted["pid_file"]).read_text())
    library, attach, stop = ctypes.CDLL(None, use_errno=True), 0x4206, signal.SIGSTOP
    tries = {
        "trace": lambda: library.ptrace(attach, guest, 0, 0) and ctypes.get_errno(),
        "write memory": lambda: library.process_vm_writev(guest, 0, 0, 0, 0, 0)
        and ctypes.get_errno(),
        "stop": lambda: os.kill(guest, stop),
        "write": lambda: pathlib.Path("/usr/written").write_text(""),
        "raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)}
    # its own directory is the one that it may write to
    pathlib.Path(STATE, "seen.json").write_text(json.dumps({
        "counts": counts, "homes": os.listdir("/root") + os.listdir("/home"),
        "refused": {name: _refusal(each) for name, each in tries.items()}}))


def _refusal(trial) -> str:
    """Return the name of the error that a trial ends with, or gives; "" where there is none."""
    try:
        number = trial()
    except OSError as error:
        number = error.errno
    return errno.errorcode.get(number, "") if isinstance(number, int) else ""


def _controller() -> dict:
    booted.configure(CONFIGURATION, (
        f"[DEFAULT]\n{BUS}host = controller\n[agent_transport]\n{BUS}"
        "[keystone_authtoken]\nwww_authenticate_uri = http://127.0.0.1:9\n"))
    # as root, as the installation guide has it
    subprocess.run(["nova-batch-manage", "--config-file",
                    booted.CONFIGURED / CONFIGURATION, "db", "sync"], check=True)
    units = "nova-batch-conductor", "nova-batch-api"
    for unit in units:
        booted.start(unit)
    seen = {"started": [hosts.wait_for(lambda unit=unit: "started, version" in booted.said(unit))
                        for unit in units]}
    address = f"http://127.0.0.1:{conf.CONF.api.listen_port}"
    seen["answers"] = [requests.get(f"{address}{path}", timeout=SECONDS).status_code
                       for path in ("/", "/v2.1/os-batch-evacuate")]
    booted.systemctl("stop", *units)
    return seen | {"log": booted.said(units[0]) + booted.said(units[1])}


class UnitsRun(namespace.NamespaceTestCase):
    def setUp(self):
        super().setUp()
        if not pathlib.Path(booted.SYSTEMD).exists():
            self.skipTest("no systemd is installed")

    def test_relays_carry_streams_and_leave_nothing(self):
        self.assertEqual(
            {"whole": [True, True], "servers": [hosts.FIRST, hosts.SECOND], "redirected": True,
             "reloaded": True, "results": ["success", "success"], "tables": ""}, _within(_relays))

    def test_the_agent_reads_guest_memory_and_may_do_nothing_else_to_guests(self):
        seen = _within(_agent)
        self.assertTrue(seen["helper"])
        self.assertNotIn("ERROR", seen["log"])
        counts = seen["counts"]
        self.assertEqual((True, 20, 5), (counts["complete"], counts["present_pages"],
                                         counts["distinct_pages"]))
        self.assertEqual([], seen["homes"])
        self.assertEqual({
            "trace": "EPERM", "write memory": "EPERM", "stop": "EPERM", "write": "EROFS",
            "raw socket": "EAFNOSUPPORT"}, seen["refused"])

    def test_the_controller_serves(self):
        seen = _within(_controller)
        self.assertEqual([True, True], seen["started"])
        self.assertEqual([200, 401], seen["answers"])
        self.assertNotIn("ERROR", seen["log"])


if __name__ == "__main__":
    look()

"""The relay as its unit lets it run: a user of its own, these capabilities and no others."""

import contextlib
import encodings.idna  # noqa: F401  (later it may not be readable any more)
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence

import ddt
from oslo_privsep import capabilities as privileges

from nova_batch_migrate import exception
from nova_batch_migrate.cmd import relay
from nova_batch_migrate.relay import control
from tests.unit.etc.test_systemd import unit_of
from tests.unit.relay import hosts, namespace
from tests.unit.relay.test_service import two_alike

#: Of the relays, and of the QEMUs whose sockets they have to see: nobody of them is root.
RELAY_USER, QEMU_USER = 64991, 64992
CAPABILITIES = unit_of("nova-batch-relay")["AmbientCapabilities"].split()
_SECONDS = hosts.SECONDS


def _relay(directory: pathlib.Path, host: str, address: str, redirect_port: int,
           capabilities: Sequence[str]) -> tuple[subprocess.Popen, control.Client]:
    own, key = hosts.certificates.certificate(directory, host)
    conf = directory / f"{host}.conf"
    conf.write_text(
        f"[DEFAULT]\nhost = {host}\n[relay]\ncontrol_socket = {directory}/{host}/sock\n"
        f"control_group =\nlisten_address = {address}\nport = {hosts.RELAY_PORT}\n"
        f"redirect_port = {redirect_port}\nca_file = {directory}/ca.pem\n"
        f"certificate_file = {own}\nkey_file = {key}\n")
    (directory / host).mkdir()
    for path in (key, directory / host):
        subprocess.run(["chown", str(RELAY_USER), path], check=True)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", __name__, *capabilities, "--config-file", conf],
        cwd=namespace.ROOT, stderr=subprocess.DEVNULL)
    client, end = control.Client(f"{directory}/{host}/sock"), time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            client.statistics()
            break
        except exception.RelayUnavailable:
            time.sleep(0.1)
    return process, client


def _run(capabilities: list[str], argv: list[str]) -> None:
    """Become the relay's user, with these capabilities, and the relay."""
    held = [privileges.CAPS_BYNAME[name] for name in capabilities]
    privileges.set_keepcaps(True)
    os.setgroups([])
    os.setgid(RELAY_USER)
    os.setuid(RELAY_USER)
    privileges.set_keepcaps(False)
    privileges.drop_all_caps_except(held, held, [])
    relay.main(argv)


@contextlib.contextmanager
def pair(*capabilities: str):
    """Yield where two relays with these capabilities are, their processes and clients of them.

    Those of the destination come first.
    """
    hosts.add_address(hosts.ADDRESS)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o777)
        processes, clients = zip(*(
            _relay(directory, host, address, port, capabilities) for host, address, port in (
                (hosts.DESTINATION, hosts.ADDRESS, 49411), (hosts.SOURCE, "127.0.0.1", 49301))),
            strict=True)
        try:
            yield (types.SimpleNamespace(directory=directory, address=hosts.ADDRESS), processes,
                   clients)
        finally:
            for each in processes:
                each.terminate()
                each.wait(_SECONDS)


def open_group(clients: Sequence[control.Client]) -> None:
    """Open one group at both relays of a pair."""
    token = secrets.token_hex(32)
    for role, client in zip(("destination", "source"), clients, strict=True):
        client.open_group(hosts.group(role, token))


def carry_two(relays, clients: Sequence[control.Client]) -> dict:
    """Open a group and carry two streams to QEMUs of a user of their own.

    Returns which came whole and which servers the source knows of, or why the group is refused.
    """
    data, seen = two_alike(pages=500), {"whole": [], "servers": []}
    try:
        open_group(clients)
        for at, server in enumerate((hosts.FIRST, hosts.SECOND)):
            migration = hosts.Migration(relays, server, 49152 + at, "-runas", str(QEMU_USER))
            migration.send(data[at])
            migration.finish()
            seen["whole"].append(migration.arrived() == data[at])
        seen["servers"] = sorted(clients[1].statistics()["groups"][0]["servers"])
    except exception.RelayError as error:
        seen["refused"] = str(error)
    return seen


def _carried(*capabilities: str) -> dict:
    """Carry two streams between two relays with these capabilities."""
    with pair(*capabilities) as (relays, _, clients):
        return carry_two(relays, clients)


@ddt.ddt
class Privileges(namespace.NamespaceTestCase):
    def test_what_the_unit_gives_is_enough(self):
        self.assertEqual({"whole": [True, True], "servers": [hosts.FIRST, hosts.SECOND]},
                         namespace.run(_carried, *CAPABILITIES))

    def test_the_unit_names_no_other(self):
        unit = unit_of("nova-batch-relay")
        self.assertEqual({"CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"},
                         set(CAPABILITIES))
        self.assertEqual(CAPABILITIES, unit["CapabilityBoundingSet"].split())
        self.assertEqual("yes", unit["NoNewPrivileges"])
        self.assertNotEqual("root", unit["User"])

    def test_without_net_admin_there_is_no_redirect(self):
        self.assertIn("refused", self.without("CAP_NET_ADMIN"))

    @ddt.data("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
    def test_without_the_others_nothing_is_attributed_and_all_is_spliced(self, name):
        self.assertEqual({"whole": [True, True], "servers": []}, self.without(name))

    def without(self, name):
        return namespace.run(_carried, *(each for each in CAPABILITIES if each != name))


if __name__ == "__main__":
    at = sys.argv.index("--config-file")
    _run(sys.argv[1:at], sys.argv[at:])

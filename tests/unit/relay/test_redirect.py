import os
import signal
import socket
import subprocess
import sys
import threading

from nova_batch_migrate import exception
from nova_batch_migrate.relay import nftables, redirect
from tests.unit.relay import namespace

MARK = 0x1AB
TARGET, TARGET6, OTHER = "10.9.9.2", "fd09::2", "10.9.9.3"
PORT, RELAY_PORT = 49152, 49301


def _addresses():
    for address in (f"{TARGET}/32", f"{OTHER}/32", f"{TARGET6}/128"):
        subprocess.run(["ip", "addr", "add", address, "dev", "lo", "nodad"], check=True)


def _answer(address, port, told):
    """Listen; tell each caller what ``told`` makes of its connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((address, port))
    listener.listen()

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(told(connection).encode())
    threading.Thread(target=serve, daemon=True).start()


def _original(connection):
    try:
        return "relay, meant {}:{}".format(*redirect.original_destination(connection))
    except exception.RelayError:
        return "refused"


def _ask(address, port=PORT, mark=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        if mark:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        connection.connect((address, port))
        return connection.recv(200).decode()


def _tables():
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _who_answers():
    _addresses()
    for address in (TARGET, TARGET6, OTHER):
        _answer(address, PORT, lambda _: "QEMU")
    _answer(TARGET, 4000, lambda _: "QEMU")
    for address in ("127.0.0.1", "::1"):
        _answer(address, RELAY_PORT, _original)
    seen = {"before": _ask(TARGET)}
    made = redirect.Redirect(MARK, 49152, 49215)
    made.add({TARGET, TARGET6}, RELAY_PORT)
    seen |= {"v4": _ask(TARGET), "v6": _ask(TARGET6), "other host": _ask(OTHER),
             "other port": _ask(TARGET, 4000), "own": _ask(TARGET, mark=MARK),
             "stranger": _ask("127.0.0.1", RELAY_PORT)}
    made.add({TARGET}, RELAY_PORT + 1)
    made.remove({TARGET, TARGET6})
    seen |= {"one group less": _ask(TARGET), "v6 gone": _ask(TARGET6)}
    made.remove({TARGET})
    seen |= {"after": _ask(TARGET), "tables": _tables()}
    return seen


def _killed():
    code = ("from nova_batch_migrate.relay import redirect; import time\n"
            f"made = redirect.Redirect({MARK}, 49152, 49215)\n"
            f"made.add({{'{TARGET}'}}, {RELAY_PORT}); print('open', flush=True); time.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        before = _tables()
        foreign = subprocess.run(["nft", "delete", "table", "inet", redirect.TABLE],
                                 capture_output=True).returncode
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    return {"before": before, "foreign": foreign, "after": _tables()}


def _nonsense():
    try:
        nftables.Ruleset().run("add table nowhere x")
    except exception.RelayError as error:
        return str(error)


class Redirect(namespace.NamespaceTestCase):
    def test_only_migrations_to_the_destinations_of_open_groups_are_led_to_the_relay(self):
        seen = namespace.run(_who_answers)
        self.assertEqual({
            "before": "QEMU", "v4": f"relay, meant {TARGET}:{PORT}",
            "v6": f"relay, meant {TARGET6}:{PORT}", "other host": "QEMU", "other port": "QEMU",
            "own": "QEMU", "stranger": "refused",
            "one group less": f"relay, meant {TARGET}:{PORT}", "v6 gone": "QEMU",
            "after": "QEMU", "tables": []}, seen)

    def test_the_table_dies_with_a_relay_that_is_killed_and_nobody_else_can_change_it(self):
        seen = namespace.run(_killed)
        self.assertIn(redirect.TABLE, seen["before"])
        self.assertNotEqual(0, seen["foreign"])
        self.assertEqual([], seen["after"])

    def test_what_nftables_refuses_is_told_in_its_words(self):
        self.assertIn("syntax error", namespace.run(_nonsense))

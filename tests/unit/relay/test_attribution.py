import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import ddt
from oslotest import base

from nova_batch_migrate.relay import attribution

SERVER = "0f6c4ba5-1b52-4d0f-8e25-6a2d3a2c3d11"
_LISTEN = ("import socket, sys, time\n"
           "s = socket.create_server((sys.argv[-1], 0)); print(s.getsockname()[1], flush=True)\n"
           "time.sleep(60)\n")


class Find(base.BaseTestCase):
    """With processes that look like QEMU: a name, a command line, a listening socket."""

    def _listening(self, *words, name="qemu-system-x86_64", address="127.0.0.1", pass_fds=()):
        """Start a process of that name with those words; return its pid and port."""
        process = subprocess.Popen([name, "-c", _LISTEN, *words, address],
                                   executable=os.path.realpath(sys.executable), text=True,
                                   env={"PYTHONHOME": sys.base_prefix}, pass_fds=pass_fds,
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        return process.pid, int(process.stdout.readline())

    def test_a_port_at_which_qemu_listens_is_its_servers(self):
        pid, port = self._listening("-uuid", SERVER)
        found = attribution.find(port)
        self.assertEqual((SERVER, pid), (found.server_id, found.pid))

    def test_every_address_is_told_from_one(self):
        _, anywhere = self._listening("-uuid", SERVER, address="0.0.0.0")
        _, here = self._listening("-uuid", SERVER)
        self.assertEqual("", attribution.find(anywhere).address)
        self.assertEqual("127.0.0.1", attribution.find(here).address)

    def test_another_program_is_nobodys_whatever_its_words(self):
        _, port = self._listening("-uuid", SERVER, name="python3")
        self.assertIsNone(attribution.find(port))

    def test_a_qemu_without_a_uuid_is_nobodys(self):
        _, port = self._listening("-name", "guest")
        self.assertIsNone(attribution.find(port))

    def test_a_port_at_which_nobody_listens_is_nobodys(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.assertIsNone(attribution.find(port))

    def test_a_socket_that_two_qemus_hold_is_nobodys(self):
        with socket.create_server(("127.0.0.1", 0)) as shared:
            port = shared.getsockname()[1]
            for server in (SERVER, SERVER.replace("0", "1")):
                self._listening("-uuid", server, pass_fds=(shared.fileno(),))
        self.assertIsNone(attribution.find(port))


@ddt.ddt
class Pieces(base.BaseTestCase):
    @ddt.data((b"/usr/bin/qemu-system-x86_64", True), (b"/usr/libexec/qemu-kvm", True),
              (b"qemu-img", False), (b"/usr/bin/notqemu-kvm", False))
    @ddt.unpack
    def test_programs(self, program, is_qemu):
        with tempfile.TemporaryDirectory() as directory:
            words = [program, b"-uuid", SERVER.upper().encode(), b""]
            pathlib.Path(directory, "cmdline").write_bytes(b"\0".join(words))
            found = attribution.qemu_server(directory)
        self.assertEqual(SERVER if is_qemu else None, found)

    def test_own_sockets_are_seen(self):
        with socket.socket() as one:
            inode = os.fstat(one.fileno()).st_ino
            self.assertIn(inode, attribution.held_sockets("/proc/self"))

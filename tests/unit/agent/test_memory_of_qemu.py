"""Guest RAM as real QEMUs have it: every kind of backend, paused behind the firmware."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import uuid

import ddt
import fixtures
import numpy
from oslotest import base

from nova_batch_migrate.agent import memory

MIB = 1 << 20
BINARY = shutil.which("qemu-system-x86_64")
BASE = ["-S", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
#: Arguments, sizes of the backends as libvirt names them.
KINDS = {
    "anonymous": (["-machine", "pc", "-m", "96M"], [96]),
    "memfd": (["-machine", "pc,memory-backend=m", "-m", "96M",
               "-object", "memory-backend-memfd,id=m,size=96M,share=on"], [96]),
    "file": (["-machine", "pc,memory-backend=m", "-m", "96M",
              "-object", "memory-backend-file,id=m,size=96M,share=on,mem-path={dir}/ram"], [96]),
    "private file": (["-machine", "pc,memory-backend=m", "-m", "96M", "-object",
                      "memory-backend-file,id=m,size=96M,share=off,mem-path={dir}/ram"], [96]),
    "cells": (["-machine", "q35", "-m", "160M", "-smp", "2",
               "-object", "memory-backend-ram,id=a,size=64M",
               "-object", "memory-backend-memfd,id=b,size=96M",
               "-numa", "node,memdev=a,cpus=0", "-numa", "node,memdev=b,cpus=1"], [64, 96]),
    "equal cells": (["-machine", "q35", "-m", "128M", "-smp", "2",
                     "-object", "memory-backend-ram,id=a,size=64M",
                     "-object", "memory-backend-ram,id=b,size=64M",
                     "-numa", "node,memdev=a,cpus=0", "-numa", "node,memdev=b,cpus=1"], [64, 64]),
    "DIMM": (["-machine", "pc", "-m", "96M,slots=2,maxmem=1G",
              "-object", "memory-backend-ram,id=d,size=128M", "-device", "pc-dimm,memdev=d"],
             [96, 128]),
}


class Qemu(fixtures.Fixture):
    """A QEMU that has not begun; ``boot`` lets the firmware write to RAM, and pauses again."""

    def __init__(self, arguments):
        self.id = str(uuid.uuid4())
        self._arguments = arguments

    def _setUp(self):
        self.directory = self.useFixture(fixtures.TempDir()).path
        monitor = os.path.join(self.directory, "qmp")
        self._process = subprocess.Popen(
            [BINARY, *BASE, "-uuid", self.id, "-qmp", f"unix:{monitor},server=on,wait=off",
             *(argument.format(dir=self.directory) for argument in self._arguments)],
            stderr=subprocess.PIPE)
        self.addCleanup(self.end)
        self.pid = self._process.pid
        self._socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self._socket.close)
        for _ in range(200):
            try:
                self._socket.connect(monitor)
                break
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(self._process.stderr.read().decode()) from None
                time.sleep(0.05)
        self._lines = self._socket.makefile("r")
        self.addCleanup(self._lines.close)
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        """Run a monitor command and return what it answers."""
        self._socket.sendall(json.dumps(
            {"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise RuntimeError("QEMU ended")

    def boot(self, ram):
        """Run until something is in RAM."""
        self.execute("cont")
        deadline = time.monotonic() + 60
        while present_pages(ram) < 32 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.execute("stop")

    def end(self):
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()

    def shared_bytes(self):
        """Return what the shared memory that it has mapped occupies."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return [line for line in status.splitlines() if line.startswith("RssShmem")]


def present_pages(ram):
    return sum(int(numpy.count_nonzero(ram.presence(part)[0])) for part in ram.slices())


@ddt.ddt
class TestBackends(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        if BINARY is None:
            self.skipTest("no qemu-system-x86_64 here")

    def open(self, qemu, sizes):
        ram = memory.GuestMemory(qemu.pid, [size * MIB for size in sizes])
        self.addCleanup(ram.close)
        return ram

    @ddt.data(*KINDS)
    def test_measuring_does_not_grow_a_guest_with_holes(self, kind):
        arguments, sizes = KINDS[kind]
        qemu = self.useFixture(Qemu(arguments))
        ram = self.open(qemu, sizes)
        self.assertEqual(sum(sizes) * MIB // memory.PAGE_BYTES, ram.total_pages)
        qemu.boot(ram)
        before = present_pages(ram), ram.file_pages(), qemu.shared_bytes()
        self.assertGreaterEqual(before[0], 32)
        self.assertLess(before[0], ram.total_pages // 2)
        buffer, read = memory.Buffer(), 0
        for part in ram.slices():
            present, _ = ram.presence(part)
            read += ram.read(part, present, buffer)
        self.assertEqual(before[0] * memory.PAGE_BYTES, read)
        self.assertEqual(before, (present_pages(ram), ram.file_pages(), qemu.shared_bytes()))

    def test_what_is_read_is_what_the_guest_has(self):
        qemu = self.useFixture(Qemu(KINDS["memfd"][0]))
        ram = self.open(qemu, [96])
        qemu.boot(ram)
        buffer, found = memory.Buffer(), {}
        for part in ram.slices():
            present, _ = ram.presence(part)
            ram.read(part, present, buffer)
            for index, page in enumerate(numpy.flatnonzero(present).tolist()):
                start = index * memory.PAGE_BYTES
                found[part.first_page + page] = bytes(
                    buffer.view[start:start + memory.PAGE_BYTES])
        saved = os.path.join(qemu.directory, "saved")
        qemu.execute("pmemsave", val=0, size=96 * MIB, filename=saved)
        content = pathlib.Path(saved).read_bytes()
        # below 1 MiB addresses show ROM in front of RAM
        for page, read in found.items():
            if page >= 256 or page < 160:
                start = page * memory.PAGE_BYTES
                self.assertEqual(content[start:start + memory.PAGE_BYTES], read, page)

    def test_a_dimm_plugged_in_later_is_a_block_more(self):
        qemu = self.useFixture(Qemu(["-machine", "pc", "-m", "96M,slots=2,maxmem=1G"]))
        self.open(qemu, [96])
        qemu.execute("object-add", **{"qom-type": "memory-backend-ram", "id": "d",
                                      "size": 128 * MIB})
        qemu.execute("device_add", driver="pc-dimm", id="dimm0", memdev="d")
        self.assertEqual({96 * MIB, 128 * MIB},
                         {block.size_bytes for block in self.open(qemu, [96, 128]).blocks})

    def test_a_qemu_that_ends_is_an_error(self):
        qemu = self.useFixture(Qemu(KINDS["memfd"][0]))
        ram = self.open(qemu, [96])
        qemu.boot(ram)
        parts = [part for part in ram.slices() if ram.presence(part)[0].any()]
        qemu.end()
        self.assertRaises(memory.GuestMemoryError, ram.presence, parts[0])
        present = numpy.ones(parts[0].pages, dtype=bool)
        self.assertRaises(memory.GuestMemoryError, ram.read, parts[0], present, memory.Buffer())

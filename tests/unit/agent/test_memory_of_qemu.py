"""Guest RAM as real QEMUs have it: every kind of backend, paused behind the firmware."""

import os
import pathlib

import ddt
import numpy
from oslotest import base

from nova_batch_migrate.agent import memory
from tests.unit.agent.qemus import BINARY, MIB, Qemu, present_pages

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

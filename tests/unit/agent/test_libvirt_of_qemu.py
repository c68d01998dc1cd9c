"""The agent on a real libvirt with a real QEMU: libvirt's driver within this process, no daemon."""

import atexit
import functools
import itertools
import json
import math
import os
import pathlib
import shutil
import tempfile
import threading
import uuid

import fixtures
import jsonschema
from oslotest import base

from nova_batch_migrate import conf, privsep
from nova_batch_migrate.agent import (
    bandwidth,
    dirty_rate,
    domains,
    feedback,
    history,
    keys,
    measurement,
    memory,
    nova_options,
    recalling,
    remembered,
    sampler,
)
from nova_batch_migrate.planning import reading, schema
from nova_batch_migrate.planning.request import PlanRequest
from nova_batch_migrate.planning.telemetry import MigrationOptions, ServerTelemetry
from tests.unit.agent import qemus
from tests.unit.agent.qemus import MIB

libvirt = domains.libvirt
#: Of a guest.
PAGES = 96 * MIB // memory.PAGE_BYTES
DRIVER = "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so"
_XML = """<domain type='qemu'>
  <name>instance-{number:08x}</name><uuid>{id}</uuid>
  <memory unit='MiB'>96</memory><memoryBacking><nosharepages/></memoryBacking><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='hda' bus='ide'/>
    </disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>"""
_SETTINGS = """security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
user = "root"
group = "root"
"""


_numbers = itertools.count(1)


@functools.cache
def _driver():
    """Make ready what libvirt's driver needs of a process, which takes one root in its life."""
    # sockets have short names
    root = pathlib.Path(tempfile.mkdtemp(prefix="nbm-libvirt-", dir="/tmp"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "etc").mkdir()
    (root / "etc/qemu.conf").write_text(_SETTINGS)
    emulator = root / "qemu"
    emulator.write_text(qemus.EMULATOR)
    emulator.chmod(0o755)
    libvirt.virEventRegisterDefaultImpl()

    def follow():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=follow, daemon=True).start()
    return root


class LibvirtCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        if libvirt is None or qemus.BINARY is None or os.geteuid() \
                or not os.path.exists(DRIVER):
            self.skipTest("libvirt's QEMU driver, its Python module, QEMU and root are needed")
        for context in (privsep.memory_pctxt, privsep.frames_pctxt):
            context.set_client_mode(False)
            self.addCleanup(context.set_client_mode, True)
        self.addCleanup(remembered.forget)
        self.conf = conf.new()
        conf.parse(self.conf, [], [])
        self.conf.set_override("host", "cmpa")
        self.root, self.rams = _driver(), {}
        self.hypervisor = domains.Hypervisor(
            "cmpa", f"qemu:///embed?root={self.root}", str(self.root / "run/qemu"))

    def start(self, **numbers):
        """Return the domain of a new guest that has filled its pages, and writes."""
        server = str(uuid.uuid4())
        directory = self.useFixture(fixtures.TempDir()).path
        handle = self.hypervisor._connection().createXML(_XML.format(
            id=server, number=next(_numbers), emulator=self.root / "qemu",
            disk=qemus.disk(directory, qemus.boot_sector(**numbers))))
        self.addCleanup(handle.destroy)
        domain = self.hypervisor.domain(server)
        ram = memory.GuestMemory(memory.qemu_pid(domain.pid_file, server),
                                 list(domain.definition.memory_blocks_bytes))
        self.addCleanup(ram.close)
        self.rams[server] = ram
        qemus.wait_for(lambda: qemus.has_filled(ram, numbers["filled"]))
        return domain

    def pace_of(self, domain, pages):
        return qemus.Pace(self.rams[domain.id], pages)


class TestPageSampling(LibvirtCase):
    """A guest that writes 16,384 pages one after the other, 128 at each of its ticks."""

    def setUp(self):
        super().setUp()
        self.writer = self.start(filled=16384, written=16384, per_tick=128)

    def sample(self):
        """Return the windows by page sampling, and the least and most pages of such windows."""
        with self.pace_of(self.writer, 16384) as pace:
            found, touched = dirty_rate.ask_qemu(self.hypervisor, [self.writer], self.conf.agent)
        self.assertEqual({}, touched)
        windows = found[self.writer.id]
        self.assertEqual([("page-sampling", seconds) for seconds in (1.0, 2.0, 4.0)],
                         [(each.source, each.seconds) for each in windows])
        return windows, [pace.written(window.seconds) for window in windows]

    def assert_as_written(self, windows, wrote, samples):
        """Each is off what was written by no more than chance makes of so many samples.

        It does once in a billion; QEMU leaves out what is no whole MiB/s.
        """
        def off(pages):
            share = pages / PAGES
            return 6 * PAGES * math.sqrt(share * (1 - share) / samples)
        for window, (least, most) in zip(windows, wrote, strict=True):
            cut = window.seconds * MIB / memory.PAGE_BYTES
            self.assertTrue(least - off(least) - cut <= window.changed_pages <= most + off(most),
                            (windows, wrote))

    def test_through_the_monitor_with_many_samples_the_rate_is_right(self):
        self.conf.set_override("page_sampling_per_gib", 16384, "agent")
        windows, wrote = self.sample()
        self.assert_as_written(windows, wrote, 1536)
        model, _ = dirty_rate.choose(PAGES, [], 0.0, windows, 16384)
        slow = min(least / window.seconds
                   for window, (least, _) in zip(windows, wrote, strict=True))
        fast = max(most / window.seconds
                   for window, (_, most) in zip(windows, wrote, strict=True))
        self.assertTrue(0.5 * slow <= model.rate_pages_per_second <= 2 * fast,
                        (model, windows, wrote))
        # a guest that hardly came to write hits few samples
        if slow > 0.5 * 128 * qemus.TICKS_PER_SECOND:
            self.assertLess(model.relative_error, 0.3)

    def test_through_libvirts_call_it_is_coarse_and_says_so(self):
        windows, wrote = self.sample()
        # of which some 18 hit in the longest window
        self.assert_as_written(windows, wrote, 48)
        model, _ = dirty_rate.choose(PAGES, [], 0.0, windows)
        self.assertGreater(model.relative_error, 0.1)


class TestMeasurement(LibvirtCase):

    def test_a_domain_is_measured_as_a_conductor_asks_for_it(self):
        # the second half of what the writer has filled is for ever like what the still one has
        still = self.start(filled=8192)
        writer = self.start(filled=16384, written=8192, per_tick=64)
        parts = measurement.Parts(
            self.hypervisor, keys.KeySource("secret"),
            sampler.Sampler(self.conf, self.hypervisor, history.Histories(None)),
            feedback.Feedback())
        self.conf.set_override("portion_bytes", 1024, "agent")
        self.conf.set_override("mapped_pages", True, "agent")
        with self.pace_of(writer, 8192) as pace:
            found, host = measurement.measure(self.conf, parts, "job", [writer.id, still.id],
                                              [0.5, 2.0, 4.0])
        servers = {each["id"]: ServerTelemetry.from_dict(each) for each in found}
        self.assertEqual((96 * MIB, "content-diff", None), (
            servers[writer.id].memory_bytes, servers[writer.id].changed.source,
            servers[writer.id].error))
        # on a busy machine a guest writes in bursts, which short windows show
        longest = max((window for window in servers[writer.id].windows
                       if window.source == "content-diff"), key=lambda window: window.seconds)
        least, most = (min(8192, pages) for pages in pace.written(longest.seconds))
        self.assertTrue(0.85 * least <= longest.changed_pages <= 1.15 * most,
                        (longest, least, most))
        rates = [pages / longest.seconds for pages in (least, most)]
        self.assertTrue(0.5 * rates[0] < servers[writer.id].changed.rate_pages_per_second
                        < 2 * rates[1], (servers[writer.id].changed, rates))
        self.assertLess(servers[still.id].changed.rate_pages_per_second, 0.1 * rates[1])
        common = sum(entry["pages"] for entry in host["page_classes"]["classes"]
                     if len(entry["servers"]) == 2)
        self.assertTrue(8192 <= common < 8192 + 400, common)
        self.assertIn("page-sampling", servers[writer.id].source_note)
        self.assert_keeps_the_schema(parts, found, host)

    def assert_keeps_the_schema(self, parts, found, host):
        """What an agent sends is what a plan shows and what nova-batch-plan reads: one schema."""
        published = schema.json_schema(PlanRequest)
        validator = jsonschema.Draft202012Validator(
            {**published, "$ref": "#/$defs/HostTelemetry"})
        options = MigrationOptions.from_nova(nova_options.read([]))
        known = {"host": "cmpa", "options": options.to_dict(), "bandwidth": bandwidth.LinkWatch(
            self.conf, self.hypervisor).measure().to_dict()}
        for servers, common in ((found, host), (recalling.recall(self.conf, parts, [
                each["id"] for each in found] + ["stranger"]), {})):
            sent = json.loads(json.dumps({**known, **common, "servers": servers}))
            validator.validate(sent)
            self.assertEqual((), reading.host(sent).unreadable)
        self.assertEqual({"page_classes", "mapped_classes", "portions", "confirmation", "sketch"},
                         set(host))
        self.assertTrue(all(host[field] for field in host))

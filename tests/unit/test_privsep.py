import json
import os
import subprocess
import sys

from oslo_config import cfg
from oslo_privsep import capabilities
from oslotest import base

from nova_batch_migrate import privsep
from nova_batch_migrate.agent import fingerprint, frames, scan
from tests.unit.agent import processes

NOBODY = 65534
#: Starts both privileged processes as the agent does, measures, and tells what each of them may.
_PROGRAM = """
import json, os, pathlib, sys
from oslo_config import cfg
from oslo_privsep import priv_context
from nova_batch_migrate import privsep
from nova_batch_migrate.agent import frames, scan

def children():
    return set(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

def allowed(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}

cfg.CONF([], project="test", default_config_files=[], default_config_dirs=[])
wanted, without = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for section in (privsep.SECTION, privsep.FRAMES_SECTION):
    cfg.CONF.set_override("capabilities", [each for each in cfg.CONF[section].capabilities
                                           if each != without], section)
told = {}
for name, context in (("memory", privsep.memory_pctxt), ("frames", privsep.frames_pctxt)):
    before = children()
    context.start(priv_context.Method.FORK)
    told[name], = [allowed(pid) for pid in children() - before]
told["found"] = scan.measure("job", wanted, [0.1, 0.2], {"seed": 7})
told["frames_found"] = frames.mapped(wanted, 10 ** 6, 1e9)
print(json.dumps(told))
"""


class TestContext(base.BaseTestCase):

    def test_the_process_may_look_and_nothing_else(self):
        self.assertEqual(
            {capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH},
            set(cfg.CONF[privsep.SECTION].capabilities))

    def test_frame_numbers_need_more_in_a_process_of_its_own(self):
        self.assertEqual(
            {capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH,
             capabilities.CAP_SYS_ADMIN},
            set(cfg.CONF[privsep.FRAMES_SECTION].capabilities))
        self.assertTrue(privsep.frames_pctxt.is_entrypoint(frames.mapped))

    def test_only_the_scan_is_called_there(self):
        for entrypoint in (scan.measure, scan.progress, scan.probe):
            self.assertTrue(privsep.memory_pctxt.is_entrypoint(entrypoint))

    def test_progress_finds_a_thread_beside_a_measurement(self):
        self.assertGreaterEqual(cfg.CONF[privsep.SECTION].thread_pool_size, 2)

    def test_the_helper_is_started_for_this_context(self):
        command = privsep.memory_pctxt.helper_command("/tmp/socket")
        self.assertIn("nova_batch_migrate.privsep.memory_pctxt", command)


class TestProcesses(base.BaseTestCase):
    """Real ones, asked for processes that are another user's."""

    def setUp(self):
        super().setUp()
        if os.geteuid():
            self.skipTest("capabilities are given up by root")

    def measured(self, guests, without=None) -> str:
        """Return the JSON of what they tell of guests, one of their capabilities taken away."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, json.dumps(
                [guest.wanted() for guest in guests]), json.dumps(without and int(without))],
            capture_output=True, text=True, check=True, timeout=180).stdout.splitlines()[-1]

    def test_none_of_the_capabilities_is_more_than_it_takes(self):
        guests = [self.useFixture(processes.Guest(user=NOBODY)) for _ in range(2)]
        for guest in guests:
            guest.write({0: 1})
        for without in (capabilities.CAP_SYS_PTRACE, capabilities.CAP_DAC_READ_SEARCH):
            told = json.loads(self.measured(guests, without))
            for server in told["found"]["servers"]:
                self.assertIn("error", server, without)
        told = json.loads(self.measured(guests, capabilities.CAP_SYS_ADMIN))
        self.assertEqual([1, 1], [each["distinct_pages"] for each in told["found"]["servers"]])
        self.assertIsNone(told["frames_found"])

    def test_they_may_what_reading_takes_and_give_back_no_contents(self):
        guests = [self.useFixture(processes.Guest(user=NOBODY)) for _ in range(2)]
        seeds = {page: page + 1 for page in range(40)}
        for guest in guests:
            guest.write(seeds)
        found = self.measured(guests)
        told = json.loads(found)
        for name, section in (("memory", privsep.SECTION), ("frames", privsep.FRAMES_SECTION)):
            mask = sum(1 << int(each) for each in cfg.CONF[section].capabilities)
            self.assertEqual({"CapEff": mask, "CapPrm": mask, "CapInh": 0, "CapAmb": 0},
                             told[name], name)
        self.assertEqual([40, 40], [each["distinct_pages"] for each in told["found"]["servers"]])
        self.assertIsNotNone(told["frames_found"])
        # pages, and what could name them, stay where they were read
        for page in seeds.values():
            content = processes.content(page)
            self.assertNotIn(content[:8].hex(), found)
            self.assertNotIn(str(fingerprint.hash_page(content, 7)), found)
            self.assertNotIn(f"{fingerprint.hash_page(content, 7):x}", found)

import configparser
import pathlib

import ddt
from oslo_config import cfg
from oslo_privsep import capabilities
from oslotest import base

from nova_batch_migrate import privsep

ROOT = pathlib.Path(__file__).resolve().parents[3]
SERVICES = ("nova-batch-agent", "nova-batch-api", "nova-batch-conductor", "nova-batch-relay")


def _ini(path):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(path)
    return parser


def unit_of(service):
    return _ini(ROOT / "etc" / "systemd" / f"{service}.service")["Service"]


@ddt.ddt
class Units(base.BaseTestCase):
    @ddt.data(*SERVICES)
    def test_starts_a_console_script_of_this_package(self, service):
        scripts = _ini(ROOT / "setup.cfg")["entry_points"]["console_scripts"]
        names = [line.partition("=")[0].strip() for line in scripts.strip().splitlines()]
        program = unit_of(service)["ExecStart"].split()[0]
        self.assertIn(pathlib.Path(program).name, names)
        self.assertEqual(service, pathlib.Path(program).name)

    @ddt.data(*SERVICES)
    def test_memory_is_bounded_and_guests_outlive_it(self, service):
        unit = unit_of(service)
        self.assertRegex(unit["MemoryMax"], r"^\d+[MG]$")
        self.assertGreater(int(unit["OOMScoreAdjust"]), 0)

    @ddt.data("nova-batch-api", "nova-batch-conductor")
    def test_no_capability_on_the_controller(self, service):
        unit = unit_of(service)
        self.assertEqual("", unit["CapabilityBoundingSet"])
        self.assertNotIn("AmbientCapabilities", unit)
        self.assertEqual("yes", unit["NoNewPrivileges"])

    def test_the_agent_has_the_capabilities_of_its_privileged_process_and_no_other(self):
        unit = unit_of("nova-batch-agent")
        needed = {capabilities.CAPS_BYVALUE[value]
                  for value in cfg.CONF[privsep.SECTION].capabilities}
        self.assertEqual(needed, set(unit["AmbientCapabilities"].split()))
        self.assertEqual(needed, set(unit["CapabilityBoundingSet"].split()))
        self.assertNotEqual("root", unit["User"])

import configparser
import pathlib
import subprocess
import sys

import fixtures
from oslotest import base

ROOT = pathlib.Path(__file__).parents[3]
PLUGIN = ROOT / "devstack" / "plugin.sh"
SETTINGS = ROOT / "devstack" / "settings"
STUBS = pathlib.Path(__file__).parent / "stubs.sh"

CONTROLLER = "rabbit n-api nova-batch-conductor nova-batch-agent"
COMPUTE = "n-cpu nova-batch-conductor nova-batch-agent"
APP = "osapi_compute_app_v21"
PASTE = f"""\
[composite:openstack_compute_api_v21]
use = call:nova.api.auth:pipeline_factory_v21
keystone = cors authtoken keystonecontext {APP}

[composite:openstack_compute_api_v21_legacy_v2_compatible]
use = call:nova.api.auth:pipeline_factory_v21
keystone = cors authtoken keystonecontext legacy_v2_compatible {APP}

[app:{APP}]
paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory
"""


class PluginTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.dir = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (self.dir / "bin").mkdir()
        manage = self.dir / "bin" / "nova-batch-manage"
        manage.write_text(f'#!/bin/sh\necho nova-batch-manage "$@" >> {self.dir}/calls\n')
        manage.chmod(0o755)
        self.paste = self.dir / "api-paste.ini"
        self.paste.write_text(PASTE)

    def run_plugin(self, enabled, *phases):
        """Source the settings and then the plug-in once for each phase; return the calls."""
        calls = self.dir / "calls"
        calls.write_text("")
        settings = {
            "CALLS": calls, "ENABLED": enabled, "BIN": self.dir / "bin", "DEST": "/opt/stack",
            "DATA_DIR": self.dir / "data", "NOVA_BATCH_CONF_DIR": self.dir / "etc",
            "NOVA_API_PASTE_INI": self.paste, "NOVA_CONF": "/etc/nova/nova.conf",
            "NOVA_CPU_CONF": "/etc/nova/nova-cpu.conf", "STACK_USER": "stack",
            "ENABLE_DEBUG_LOG_LEVEL": "True", "REGION_NAME": "RegionOne",
            "SERVICE_PASSWORD": "service-secret", "LIBVIRT_GROUP": "libvirt",
        }
        script = "\n".join([
            "set -e", *(f"{name}='{value}'" for name, value in settings.items()),
            f". {STUBS}", f". {SETTINGS}", *(f". {PLUGIN} {phase}" for phase in phases),
        ])
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return calls.read_text().splitlines()

    def ini(self, path):
        # [DEFAULT] as a section like any other
        parser = configparser.RawConfigParser(default_section="")
        parser.optionxform = str
        parser.read(path)
        return {section: dict(parser.items(section)) for section in parser.sections()}

    def test_install(self):
        calls = self.run_plugin(CONTROLLER, "stack install")

        self.assertIn("setup_develop /opt/stack/nova-batch-migrate", calls)
        self.assertIn("define_plugin nova-batch-migrate", calls)

    def test_the_controller_is_configured(self):
        calls = self.run_plugin(CONTROLLER, "stack post-config")

        conf = self.dir / "etc" / "nova-batch-migrate.conf"
        known = self.ini(conf)
        self.assertEqual({
            "debug": "True", "state_path": f"{self.dir}/data/nova-batch-migrate",
            "transport_url": "rabbit://user:secret@controller:5672/batch_migrate",
        }, known["DEFAULT"])
        self.assertEqual("rabbit://user:secret@controller:5672/batch_agents",
                         known["agent_transport"]["transport_url"])
        self.assertEqual("mysql+pymysql://root:secret@127.0.0.1/nova_batch",
                         known["database"]["connection"])
        self.assertEqual({"username": "nova-batch", "region_name": "RegionOne"},
                         {key: known["nova"][key] for key in ("username", "region_name")})
        self.assertEqual("nova", known["placement"]["auth_section"])
        self.assertEqual(0o640, conf.stat().st_mode & 0o777)
        self.assertFalse((self.dir / "etc" / "nova-batch-agent.conf").exists())

        wanted = [
            "create_service_user nova-batch admin",
            "rpc_backend_add_vhost batch_migrate",
            "rpc_backend_add_vhost batch_agents",
            "recreate_database nova_batch",
            f"nova-batch-manage --config-file {conf} db sync",
        ]
        self.assertEqual(wanted, [call for call in calls if call in wanted])

    def test_a_compute_node_knows_no_database_and_no_service_user(self):
        calls = self.run_plugin(COMPUTE, "stack post-config")

        conf = self.dir / "etc" / "nova-batch-agent.conf"
        known = self.ini(conf)
        self.assertEqual({"DEFAULT", "agent", "nova_batch_memory"}, set(known))
        self.assertEqual("rabbit://user:secret@controller:5672/batch_agents",
                         known["DEFAULT"]["transport_url"])
        self.assertEqual({
            "nova_config_files": "/etc/nova/nova.conf,/etc/nova/nova-cpu.conf",
            "fingerprint_secret": "service-secret",
        }, known["agent"])
        self.assertEqual(f"sudo {self.dir}/bin/privsep-helper --config-file {conf}",
                         known["nova_batch_memory"]["helper_command"])
        self.assertEqual(PASTE, self.paste.read_text())
        self.assertFalse(any("create_service_user" in call for call in calls), calls)

    def test_the_filter_stands_right_before_the_application_once(self):
        self.run_plugin(CONTROLLER, "stack post-config")
        once = self.paste.read_text()
        self.run_plugin(CONTROLLER, "stack post-config")

        self.assertEqual(self.ini_of(once), self.ini(self.paste))
        known = self.ini(self.paste)
        self.assertEqual(f"cors authtoken keystonecontext batch_evacuate {APP}",
                         known["composite:openstack_compute_api_v21"]["keystone"])
        self.assertEqual(
            f"cors authtoken keystonecontext legacy_v2_compatible batch_evacuate {APP}",
            known["composite:openstack_compute_api_v21_legacy_v2_compatible"]["keystone"])
        self.assertEqual({
            "paste.filter_factory": "nova_batch_migrate.api.filter:filter_factory",
            "config_file": f"{self.dir}/etc/nova-batch-migrate.conf",
        }, known["filter:batch_evacuate"])

    def ini_of(self, text):
        path = self.dir / "copy.ini"
        path.write_text(text)
        return self.ini(path)

    def test_clean_leaves_novas_paste_file_as_it_was(self):
        self.run_plugin(CONTROLLER, "stack post-config")
        # What another plug-in adds behind ours is not ours to remove
        with self.paste.open("a") as paste:
            paste.write("\n[filter:other]\nuse = egg:other\n")

        calls = self.run_plugin(CONTROLLER, "clean", "clean")

        self.assertEqual(
            self.ini_of(PASTE + "\n[filter:other]\nuse = egg:other\n"), self.ini(self.paste))
        self.assertFalse((self.dir / "etc").exists())
        self.assertFalse((self.dir / "data" / "nova-batch-migrate").exists())
        self.assertIn("sudo rabbitmqctl delete_vhost batch_migrate", calls)
        self.assertIn("sudo rabbitmqctl delete_vhost batch_agents", calls)

    def test_clean_where_nova_is_gone_already(self):
        self.paste.unlink()

        self.run_plugin(CONTROLLER, "clean")

        self.assertFalse(self.paste.exists())

    def test_each_node_starts_what_belongs_there(self):
        conductor = (
            f"run_process nova-batch-conductor {self.dir}/bin/nova-batch-conductor"
            f" --config-file {self.dir}/etc/nova-batch-migrate.conf"
        )
        agent = (
            f"run_process nova-batch-agent {self.dir}/bin/nova-batch-agent"
            f" --config-file {self.dir}/etc/nova-batch-agent.conf libvirt"
        )
        for enabled, wanted in (
            (CONTROLLER, [conductor]), (COMPUTE, [agent]),
            (f"{CONTROLLER} n-cpu", [conductor, agent]), ("n-api n-cpu", []),
        ):
            calls = self.run_plugin(enabled, "stack extra")
            self.assertEqual(wanted, [c for c in calls if c.startswith("run_process")], enabled)

    def test_unstack_stops_them(self):
        calls = self.run_plugin(COMPUTE, "unstack")

        self.assertEqual(
            ["stop_process nova-batch-agent", "stop_process nova-batch-conductor"],
            [call for call in calls if call.startswith("stop_process")])

    def test_other_phases_do_nothing(self):
        calls = self.run_plugin(f"{CONTROLLER} n-cpu", "stack pre-install", "stack test-config")

        self.assertEqual({"define_plugin", "enable_service"}, {call.split()[0] for call in calls})

    def test_no_name_of_a_bus_is_part_of_the_other(self):
        calls = self.run_plugin(CONTROLLER, "stack post-config")

        one, other = (call.split()[1] for call in calls if "add_vhost" in call)
        self.assertFalse(one in other or other in one, (one, other))

    def test_bashate_finds_nothing(self):
        done = subprocess.run(
            [sys.executable, "-m", "bashate.bashate", "-i", "E006", "-e", "E005,E042,E043",
             PLUGIN, SETTINGS, STUBS], capture_output=True, text=True)

        self.assertEqual((0, ""), (done.returncode, done.stdout + done.stderr))

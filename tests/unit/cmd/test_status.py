"""nova-batch-status upgrade check: each check's three verdicts, and the command as it is run."""

import json
import subprocess
import sys

import ddt
import fixtures
import requests
from oslo_upgradecheck import upgradecheck
from oslotest import base

from nova_batch_migrate import conf
from nova_batch_migrate.cmd import status
from nova_batch_migrate.db import engine, migration
from tests.unit.clients import cloud
from tests.unit.db import fixture

Code = upgradecheck.Code


class DatabaseCheckTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixture.Database(tables=False))
        self.checks = status.Checks(conf.CONF)

    def test_without_tables_it_names_the_command(self):
        result = self.checks.check_database()

        self.assertEqual(Code.FAILURE, result.code)
        self.assertIn("nova-batch-manage db sync", result.details)

    def test_with_the_tables_of_this_version_it_is_content(self):
        migration.upgrade()

        self.assertEqual(Code.SUCCESS, self.checks.check_database().code)

    def test_a_database_that_does_not_answer_is_a_failure(self):
        conf.CONF.set_override(
            "connection", "mysql+pymysql://u:p@127.0.0.1:1/none", "database")
        engine.reset()

        result = self.checks.check_database()

        self.assertEqual(Code.FAILURE, result.code)
        self.assertIn("[database] connection", result.details)


@ddt.ddt
class SettingsCheckTest(base.BaseTestCase):
    def _checks(self, text: str) -> status.Checks:
        directory = self.useFixture(fixtures.TempDir()).path
        with open(f"{directory}/our.conf", "w") as file:
            file.write(text.replace("DIR", directory))
        self.directory = directory
        settings = conf.new()
        settings([], default_config_files=[f"{directory}/our.conf"], default_config_dirs=[])
        return status.Checks(settings)

    @ddt.data(
        ("", Code.FAILURE, "not set"),
        ("transport_url = nonsense", Code.FAILURE, "transport_url"),
        ("transport_url = rabbit://u:p@h:5672/api", Code.WARNING, "[agent_transport]"),
        ("transport_url = rabbit://u:p@h:5672/api\n[agent_transport]\n"
         "transport_url = rabbit://u:p@h:5672/api", Code.WARNING, "[agent_transport]"),
        ("transport_url = rabbit://u:p@h:5672/api\n[agent_transport]\n"
         "transport_url = rabbit://u:p@h:5672/agents", Code.SUCCESS, None),
    )
    @ddt.unpack
    def test_the_buses(self, text, code, words):
        result = self._checks(f"[DEFAULT]\n{text}\n").check_transport()

        self.assertEqual(code, result.code, result.details)
        if words is None:
            self.assertIsNone(result.details)
        else:
            self.assertIn(words, result.details)

    def test_a_policy_file_in_json_is_a_failure_one_in_yaml_not(self):
        checks = self._checks("[oslo_policy]\npolicy_file = DIR/policy.yaml\n")
        for text, code in (('"rule": "role:admin"\n', Code.SUCCESS),
                           ('{"rule": "role:admin"}', Code.FAILURE)):
            with open(f"{self.directory}/policy.yaml", "w") as file:
                file.write(text)
            self.assertEqual(code, checks.check_policy_file().code)


class ServiceUserCheckTest(cloud.CloudTestCase):
    def setUp(self):
        super().setUp()
        self.checks = status.Checks(self.conf)
        self.http.get(f"{cloud.NOVA}/os-services", json={"services": []})
        self.http.get(f"{cloud.PLACEMENT}/resource_providers", json={"resource_providers": []})

    def verdicts(self) -> tuple:
        return self.checks.check_nova().code, self.checks.check_placement().code

    def test_a_user_with_the_rights_passes(self):
        self.assertEqual((Code.SUCCESS, Code.SUCCESS), self.verdicts())

    def test_a_refused_password_is_a_failure(self):
        self.http.post(f"{cloud.KEYSTONE}/auth/tokens", status_code=401, json={"error": {
            "code": 401, "title": "Unauthorized", "message": "Invalid password"}})

        self.assertEqual((Code.FAILURE, Code.FAILURE), self.verdicts())

    def test_a_host_that_is_unknown_from_here_is_a_warning(self):
        self.http.get(cloud.KEYSTONE, exc=requests.ConnectionError("Name or service not known"))
        self.http.post(f"{cloud.KEYSTONE}/auth/tokens", exc=requests.ConnectionError)

        self.assertEqual((Code.WARNING, Code.WARNING), self.verdicts())

    def test_a_user_without_the_rights_is_a_failure(self):
        self.http.get(f"{cloud.NOVA}/os-services", status_code=403, json=cloud.fault(
            "forbidden", 403, "Policy doesn't allow os_compute_api:os-services:list to be "
                              "performed."))

        result = self.checks.check_nova()

        self.assertEqual(Code.FAILURE, result.code)
        self.assertIn("os-services:list", result.details)

    def test_an_empty_section_is_a_failure(self):
        self.conf.clear_override("auth_type", "nova")

        self.assertEqual((Code.FAILURE, Code.SUCCESS), self.verdicts())


class StatusFromTheShellTest(base.BaseTestCase):
    def test_every_check_is_run_and_the_worst_is_the_exit_status(self):
        directory = self.useFixture(fixtures.TempDir()).path
        with open(f"{directory}/our.conf", "w") as file:
            file.write(f"[DEFAULT]\nstate_path = {directory}\n")

        done = subprocess.run(
            [sys.executable, "-c", "import sys; from nova_batch_migrate.cmd import status; "
                                   "sys.exit(status.main())",
             "--config-file", f"{directory}/our.conf", "upgrade", "check", "--json"],
            capture_output=True, text=True)

        self.assertEqual(int(Code.FAILURE), done.returncode, done.stdout + done.stderr)
        self.assertEqual(
            {"Database": 2, "Policy file": 0, "Message bus": 2, "Service user at Nova": 2,
             "Service user at Placement": 2},
            {check["check"]: check["result"] for check in json.loads(done.stdout)["checks"]})

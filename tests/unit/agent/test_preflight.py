import fixtures
from oslotest import base

from nova_batch_migrate import conf, exception, privsep
from nova_batch_migrate.agent import domain_xml, domains, preflight


class Host:
    """A hypervisor of set versions."""

    def __init__(self, qemu="10.0.2", kinds=("qemu",), default="kvm"):
        self._qemu, self._kinds, self._default = qemu, kinds, default

    def versions(self):
        if self._qemu is None:
            raise exception.AgentUnavailable("libvirt is gone: start it")
        return "9.0.0", self._qemu

    def default_virt_type(self):
        return self._default

    def domains(self):
        return [domains.Domain(str(number), "i", 1, domain_xml.Definition(
            kind, "n", "p", 1, (1,), ()), domains.Presence("running", False, False), "")
            for number, kind in enumerate(self._kinds)]


class TestCheck(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        privsep.memory_pctxt.set_client_mode(False)
        self.addCleanup(privsep.memory_pctxt.set_client_mode, True)
        path = self.useFixture(fixtures.TempDir()).join("nova.conf")
        with open(path, "w", encoding="utf-8") as opened:
            opened.write("[libvirt]\nlive_migration_downtime = 300\n")
        self.options = {"nova_config_files": [path], "link_mib_s": 100}

    def check(self, host, **options):
        settings = conf.new()
        conf.parse(settings, [], [])
        settings.set_override("host", "cmpa")
        for name, value in (self.options | options).items():
            settings.set_override(name, value, "agent")
        return preflight.check(settings, host)

    def test_a_host_in_order(self):
        found = self.check(Host())
        self.assertEqual(("cmpa", "9.0.0", "10.0.2", "tcg", 300, None, []), (
            found["host"], found["libvirt_version"], found["qemu_version"], found["accelerator"],
            found["nova_options"]["live_migration_downtime"], found["relay"], found["problems"]))
        self.assertIn("run", found["ksm"])

    def test_an_old_qemu_without_kvm_is_a_problem_and_with_kvm_is_not(self):
        problem, = self.check(Host("7.2.22"))["problems"]
        self.assertIn("QEMU 7.2.22", problem)
        self.assertEqual([], self.check(Host("7.2.22", kinds=("kvm",)))["problems"])

    def test_the_accelerator_of_a_host_without_domains_is_libvirts(self):
        self.assertEqual("kvm", self.check(Host(kinds=()))["accelerator"])
        self.assertEqual("unknown", self.check(Host(kinds=(), default=""))["accelerator"])

    def test_one_guest_without_kvm_makes_the_host_tcg(self):
        self.assertEqual("tcg", self.check(Host(kinds=("kvm", "qemu")))["accelerator"])

    def test_libvirt_that_does_not_answer_is_a_problem(self):
        found = self.check(Host(qemu=None))
        self.assertEqual((None, "unknown", ["libvirt is gone: start it"]),
                         (found["libvirt_version"], found["accelerator"], found["problems"]))

    def test_unknown_options_and_an_unknown_link_are_problems(self):
        options, link = self.check(Host(), nova_config_files=[], link_mib_s=0,
                                   migration_interface="nolink0")["problems"]
        self.assertIn("[agent] nova_config_files", options)
        self.assertIn("live_migration_downtime", options)
        self.assertIn("migration link nolink0", link)

    def test_a_privileged_process_that_does_not_start_is_a_problem(self):
        def fail():
            raise privsep.FAILURES[0]("sudo: a password is required")
        self.useFixture(fixtures.MonkeyPatch("nova_batch_migrate.agent.scan.probe", fail))
        problem, = self.check(Host())["problems"]
        self.assertIn("sudo: a password is required", problem)
        self.assertIn("[nova_batch_memory] helper_command", problem)

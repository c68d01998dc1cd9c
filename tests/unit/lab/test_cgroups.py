"""Processor groups of the lab: which hierarchy is taken, what is written where, and real ones."""
import os
import pathlib
import subprocess
import sys

import ddt
import fixtures
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import cgroups, daemon  # noqa: E402
from nbmlab.cgroups import Hierarchy  # noqa: E402

V1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
V1_BOTH = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpuacct,cpu 0 0\n"
V1_OTHER = "cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n"


class _Fake(base.BaseTestCase):
    """A directory in the place of the hierarchy: what is written can be read."""

    def setUp(self):
        super().setUp()
        self.mount = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def take(self, found: Hierarchy | str) -> None:
        self.useFixture(fixtures.MonkeyPatch("nbmlab.cgroups.hierarchy", lambda: found))

    def divided(self, machine: str) -> Hierarchy:
        """Return a version 2 hierarchy with a machine whose groups may have children."""
        system = self.mount / f"nbm-{machine}/system"
        system.mkdir(parents=True)
        for group in (self.mount, system.parent, system):
            (group / "cgroup.subtree_control").write_text("")
        return Hierarchy(self.mount, 2)


@ddt.ddt
class Find(_Fake):
    @ddt.data((V1_OTHER + V1, Hierarchy(pathlib.Path("/sys/fs/cgroup/cpu"), 1, "cpu")),
              (V1_BOTH, Hierarchy(pathlib.Path("/sys/fs/cgroup/cpu,cpuacct"), 1, "cpuacct,cpu")),
              (V1.replace("rw", "ro"), "/sys/fs/cgroup/cpu is read-only"),
              (V1_OTHER, "no cgroup hierarchy is mounted"))
    @ddt.unpack
    def test_version_1_by_the_mounts(self, mounts, expected):
        self.assertEqual(expected, cgroups.find(mounts))

    def test_version_2_by_its_controllers(self):
        mounts = f"cgroup2 {self.mount} cgroup2 rw,nosuid 0 0\n"
        self.assertEqual(f"{self.mount} has no cpu controller", cgroups.find(mounts))
        (self.mount / "cgroup.controllers").write_text("cpuset cpu io memory\n")
        self.assertEqual(Hierarchy(self.mount, 2), cgroups.find(mounts))
        self.assertEqual(f"{self.mount} is read-only", cgroups.find(mounts.replace("rw", "ro")))

    def test_version_1_goes_before_an_empty_version_2(self):
        (self.mount / "cgroup.controllers").write_text("hugetlb\n")
        found = cgroups.find(f"cgroup2 {self.mount} cgroup2 rw 0 0\n{V1}")
        self.assertEqual(1, found.version)

    def test_what_cannot_be_made_is_not_usable(self):
        found = Hierarchy(self.mount, 1, "cpu")
        self.assertEqual(f"groups in {self.mount} have no weight", cgroups.probed(found))
        self.assertEqual([], list(self.mount.iterdir()))
        gone = Hierarchy(self.mount / "gone", 2)
        self.assertIn("no group can be made", cgroups.probed(gone))


class Version2(_Fake):
    def test_services_get_weights_only_when_both_groups_above_give_them(self):
        self.take(self.divided("cmpa"))
        cgroups.divide("cmpa")
        for name in ("nbm-cmpa", "nbm-cmpa/system"):
            self.assertEqual("+cpu", (self.mount / name / "cgroup.subtree_control").read_text())

    def test_a_process_enters_the_top_and_services_leaves_below(self):
        self.take(self.divided("cmpa"))
        self.assertEqual(str(self.mount / "nbm-cmpa/cgroup.procs"), cgroups.entering("cmpa")[-1])
        words = cgroups.joining("cmpa", "system", "libvirtd-cmpa")
        self.assertEqual(str(self.mount / "nbm-cmpa/system/libvirtd-cmpa/cgroup.procs"), words[-1])
        self.assertEqual(("2", ""), cgroups.mounting())

    def test_the_agent_takes_what_others_leave(self):
        self.take(self.divided("cmpa"))
        group = self.mount / "nbm-cmpa/system/agent"
        group.mkdir()
        for name in ("cpu.weight", "cpu.idle"):
            (group / name).write_text("0")
        cgroups.joining("cmpa", "system", "agent", idle=True)
        self.assertEqual(("1", "0"), ((group / "cpu.idle").read_text(),
                                      (group / "cpu.weight").read_text()))
        (group / "cpu.idle").unlink()
        cgroups.joining("cmpa", "system", "agent", idle=True)
        self.assertEqual("1", (group / "cpu.weight").read_text())


@ddt.ddt
class Storage(_Fake):
    @ddt.data((1, "cpu.shares", "102400"), (2, "cpu.weight", "10000"))
    @ddt.unpack
    def test_it_outweighs_hosts(self, version, name, weight):
        self.take(Hierarchy(self.mount, version))
        for machine in ("storage", "cmpa"):
            (self.mount / f"nbm-{machine}").mkdir()
            (self.mount / f"nbm-{machine}" / name).write_text("as it was")
            cgroups.make(machine)
        self.assertEqual([weight, "as it was"], [
            (self.mount / f"nbm-{machine}" / name).read_text() for machine in ("storage", "cmpa")])


class Words(_Fake):
    def test_the_command_is_the_same_process_in_the_group(self):
        (self.mount / "nbm-cmpa").mkdir()
        self.take(Hierarchy(self.mount, 1, "cpu"))
        words = cgroups.joining("cmpa", "user")
        told = subprocess.Popen([*words, "sh", "-c", "echo $$ \"$1\"", "-", "a b"],
                                stdout=subprocess.PIPE, text=True)
        self.assertEqual(f"{told.pid} a b\n", told.communicate()[0])
        self.assertEqual(f"{told.pid}\n", (self.mount / "nbm-cmpa/user/cgroup.procs").read_text())

    def test_without_its_group_the_command_runs_all_the_same(self):
        self.take(Hierarchy(self.mount, 1, "cpu"))
        words = cgroups.entering("gone")
        self.assertEqual("on\n", subprocess.run([*words, "echo", "on"], capture_output=True,
                                                text=True, check=True).stdout)

    def test_without_groups_there_are_no_words(self):
        self.take("/sys/fs/cgroup is read-only")
        self.assertEqual(((), (), ()), (cgroups.joining("cmpa", "user"),
                                        cgroups.entering("cmpa"), cgroups.mounting()))
        for call in (cgroups.make, cgroups.divide, cgroups.remove):
            call("cmpa")
        self.assertEqual([], cgroups.processes("cmpa"))
        self.assertEqual("none: /sys/fs/cgroup is read-only", cgroups.told())

    def test_a_machine_without_a_group_is_left_out(self):
        self.take(Hierarchy(self.mount, 1, "cpu"))
        self.assertEqual((), cgroups.joining("cmpa", "user"))
        self.assertEqual([], list(self.mount.iterdir()))

    def test_a_daemon_restarts_when_its_place_changes(self):
        plain = daemon.Daemon("nova-api", ("true",))
        digests = {plain.digest, daemon.Daemon("nova-api", ("true",), machine="cmpa").digest,
                   daemon.Daemon("nova-api", ("true",), idle=True).digest}
        self.take("read-only")
        self.assertEqual(4, len(digests | {plain.digest}))


class Real(base.BaseTestCase):
    """Groups of this machine, or their absence, whichever it allows."""

    def test_a_process_is_in_its_group_until_the_group_is_removed(self):
        machine = f"test-{os.getpid()}"
        self.addCleanup(cgroups.remove, machine)
        cgroups.make(machine)
        cgroups.divide(machine)
        words = cgroups.joining(machine, "system", "sleeper", idle=True)
        process = subprocess.Popen([*words, "sh", "-c", "echo on; exec sleep 100"],
                                   stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        place = pathlib.Path(f"/proc/{process.pid}/cgroup").read_text()
        self.assertEqual(cgroups.usable(), f"/nbm-{machine}/system/sleeper\n" in place)
        self.assertEqual([process.pid] if cgroups.usable() else [], cgroups.processes(machine))
        daemon.kill([process.pid])
        cgroups.remove(machine)
        self.assertEqual((), cgroups.joining(machine, "user"))

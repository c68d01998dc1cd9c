"""The storage's processor group: which hierarchy is taken, what is written there, a real one."""
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


@ddt.ddt
class Find(_Fake):
    @ddt.data((V1_OTHER + V1, Hierarchy(pathlib.Path("/sys/fs/cgroup/cpu"), 1)),
              (V1_BOTH, Hierarchy(pathlib.Path("/sys/fs/cgroup/cpu,cpuacct"), 1)),
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
        found = Hierarchy(self.mount, 1)
        self.assertEqual(f"groups in {self.mount} have no weight", cgroups.probed(found))
        self.assertEqual([], list(self.mount.iterdir()))
        gone = Hierarchy(self.mount / "gone", 2)
        self.assertIn("no group can be made", cgroups.probed(gone))


@ddt.ddt
class Joining(_Fake):
    @ddt.data((1, "cpu.shares", "102400"), (2, "cpu.weight", "10000"))
    @ddt.unpack
    def test_a_group_outweighs_sessions(self, version, name, weight):
        self.take(Hierarchy(self.mount, version))
        group = self.mount / "nbm-storage"
        group.mkdir()
        (group / name).write_text("as it was")
        cgroups.joining("storage")
        self.assertEqual(weight, (group / name).read_text())

    def test_the_command_is_the_same_process_in_the_group(self):
        self.take(Hierarchy(self.mount, 1))
        words = cgroups.joining("storage")
        told = subprocess.Popen([*words, "sh", "-c", "echo $$ \"$1\"", "-", "a b"],
                                stdout=subprocess.PIPE, text=True)
        self.assertEqual(f"{told.pid} a b\n", told.communicate()[0])
        self.assertEqual(f"{told.pid}\n", (self.mount / "nbm-storage/cgroup.procs").read_text())

    def test_without_its_group_the_command_runs_all_the_same(self):
        self.take(Hierarchy(self.mount, 1))
        words = cgroups.joining("storage")
        (self.mount / "nbm-storage").rmdir()
        self.assertEqual("on\n", subprocess.run([*words, "echo", "on"], capture_output=True,
                                                text=True, check=True).stdout)

    def test_where_there_can_be_none_there_are_no_words(self):
        self.take("/sys/fs/cgroup is read-only")
        cgroups.remove("storage")
        self.assertEqual(((), []), (cgroups.joining("storage"), cgroups.processes("storage")))
        self.assertEqual("none: /sys/fs/cgroup is read-only", cgroups.told())


class Real(base.BaseTestCase):
    """A group of this machine, or its absence, whichever it allows."""

    def test_a_process_is_in_its_group_until_the_group_is_removed(self):
        machine = f"test-{os.getpid()}"
        self.addCleanup(cgroups.remove, machine)
        process = subprocess.Popen(
            [*cgroups.joining(machine), "sh", "-c", "echo on; exec sleep 100"],
            stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        usable = isinstance(cgroups.hierarchy(), Hierarchy)
        place = pathlib.Path(f"/proc/{process.pid}/cgroup").read_text()
        self.assertEqual(usable, f"/nbm-{machine}\n" in place)
        self.assertEqual([process.pid] if usable else [], cgroups.processes(machine))
        daemon.kill([process.pid])
        cgroups.remove(machine)
        self.assertEqual([], cgroups.processes(machine))

import os
import pathlib
import subprocess
import sys
import time
import uuid

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401

from nbmbench import hosts_first  # noqa: E402  isort: skip

# a QEMU by its words, with a thread of its own and the one of a guest's processor
GUEST = """
import pathlib, threading, time
def named(name):
    pathlib.Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
    time.sleep(60)
for name in ("CPU 0/TCG", "mig/src/main"):
    threading.Thread(target=named, args=[name], daemon=True).start()
time.sleep(60)
"""


class TestHostsFirst(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.guest = subprocess.Popen(
            ["qemu-system-x86_64", "-c", GUEST, "-uuid", str(uuid.uuid4())],
            executable=sys.executable)
        self.addCleanup(self.guest.wait)
        self.addCleanup(self.guest.kill)
        end = time.monotonic() + 30
        while not {"CPU 0/TCG", "mig/src/main"} <= self.policies().keys():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def policies(self) -> dict[str, int]:
        return {(thread / "comm").read_text().strip(): os.sched_getscheduler(int(thread.name))
                for thread in pathlib.Path(f"/proc/{self.guest.pid}/task").iterdir()}

    def test_all_threads_but_those_of_the_guests_processors(self):
        hosts_first._schedule(self.guest.pid, os.SCHED_BATCH)
        found = self.policies()
        self.assertEqual(os.SCHED_OTHER, found.pop("CPU 0/TCG"))
        self.assertEqual({os.SCHED_BATCH}, set(found.values()))
        self.assertEqual(2, len(found))

    def test_a_guests_processor_that_inherited_it_is_put_back(self):
        for thread in os.listdir(f"/proc/{self.guest.pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))
        hosts_first._schedule(self.guest.pid, os.SCHED_BATCH)
        self.assertEqual(os.SCHED_OTHER, self.policies()["CPU 0/TCG"])
        hosts_first._schedule(self.guest.pid, os.SCHED_OTHER)
        self.assertEqual({os.SCHED_OTHER}, set(self.policies().values()))

    def test_qemus_are_known_by_their_words_and_their_network(self):
        here = {os.stat("/proc/self/ns/net").st_ino}
        self.assertIn(self.guest.pid, hosts_first._qemus(here))
        self.assertNotIn(os.getpid(), hosts_first._qemus(here))
        self.assertNotIn(self.guest.pid, hosts_first._qemus(()))

"""A guest with a duty cycle on the real cloud: its period is found, and waiting for quiet pays.

Takes some five minutes, so tools/test leaves it out; on a lab that is up:
``python -m testtools.run tests.lab.waiting``. All guests that it finds are deleted first.
"""
import json
import pathlib
import sys
import time

from oslotest import base

from nova_batch_migrate.planning import timing
from nova_batch_migrate.planning.result import Wait

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lab"))

from nbmlab import check, drain, guests, layout, network, shell  # noqa: E402
from nbmlab.cloud import Cloud  # noqa: E402
from nbmlab.families import FAMILIES  # noqa: E402

MEMBER = guests.Wanted("writer-duty", "waiting-duty")
PERIOD_SECONDS = FAMILIES[MEMBER.family].load.period_seconds
# A stream of some ten seconds, that fits into the 15 s in which the guest rests.
LINK_MIB_PER_SECOND = 12.0
MAX_WAIT_SECONDS = 60
MEASURE_SECONDS = 200
MOVE_SECONDS = 150


class WaitingTestCase(base.BaseTestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        hosts = layout.load_options().host_list
        cls.link = layout.load_options().link_mib_per_second
        network.cap(hosts, LINK_MIB_PER_SECOND)
        drain.initial_state()
        booted = guests.boot([MEMBER])
        drain.settle(booted)
        cls.server_id = booted[0].id

    @classmethod
    def tearDownClass(cls):
        drain.initial_state()
        network.cap(layout.load_options().host_list, cls.link)
        super().tearDownClass()

    def planned(self, *words: str) -> str:
        """Ask for a plan to move the guest; return the batch's id once it is there.

        Past the relays, which send of a page what changed in it: through them a busy stream takes
        no longer than a quiet one.
        """
        done = drain.openstack("server", "batch-migrate", "--server", self.server_id,
                               "--plan-only", "--dedup-scope", "off", *words, "-f", "json")
        self.assertEqual(0, done.returncode, done.stderr)
        batch_id = json.loads(done.stdout[done.stdout.index("{"):])["id"]
        drain.wait_for_batch(batch_id, {"planned"}, MEASURE_SECONDS)
        return batch_id

    def moved(self, batch_id: str) -> dict:
        """Let the batch run; return what it tells of the guest, which must be whole."""
        ticks = check.snapshot([self.server_id])
        Cloud().post("nova-api", f"{drain.BATCHES}/{batch_id}/action", {"start": None})
        batch = drain.wait_for_batch(batch_id, drain.FINAL, MOVE_SECONDS)
        self.assertEqual("completed", batch["status"], batch)
        verdict = check.verify(ticks)[self.server_id]
        self.assertTrue(verdict.alive and verdict.memory_intact, verdict)
        return batch["servers"][0]

    def test_its_period_is_found_and_waiting_for_quiet_pays(self):
        waiting = self.planned("--max-wait", str(MAX_WAIT_SECONDS))
        plan = drain.plan(waiting)
        member = plan["groups"][0]["members"][0]
        self.assertIsNotNone(member["wait"], member)
        wait = Wait.from_dict(member["wait"])
        self.assertAlmostEqual(PERIOD_SECONDS, wait.period_seconds, delta=0.05 * PERIOD_SECONDS)
        self.assertIn("waits for its quiet moment", member["reason"])
        # asked for when its moment has just passed: it has to wait
        time.sleep(timing.seconds_until(wait, time.time()) + wait.lasts_seconds + 1)
        quiet = self.moved(waiting)
        told = [event["kind"] for event in drain.events(waiting)]
        self.assertIn("waiting", told)

        at_once = self.planned()
        # in the middle between two of its moments
        time.sleep(timing.seconds_until(wait, time.time()) + 0.5 * wait.period_seconds)
        busy = self.moved(at_once)
        for name, server in (("quiet", quiet), ("busy", busy)):
            shell.say(f"{name}: {server['raw_bytes'] / 2 ** 20:.1f} MiB in "
                      f"{server['actual_stream_seconds']:.1f} s, downtime "
                      f"{1000 * server['downtime_seconds']:.0f} ms, projected "
                      f"{server['projected_stream_seconds']:.1f} s")
        self.assertLess(quiet["raw_bytes"], 0.95 * busy["raw_bytes"])
        self.assertLess(quiet["actual_stream_seconds"],
                        0.95 * busy["actual_stream_seconds"])

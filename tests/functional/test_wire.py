"""Streams share the wire: caps before and while they run, by need, over takeovers and failures."""

from nova_batch_migrate.agent import domains
from tests.functional import base

NO_CAP = domains.NO_CAP_MIB_PER_SECOND


class Wire(base.BatchTestCase):
    def speeds_of(self, server_id):
        """Return the MiB/s that libvirt was told for a server, in turn."""
        return [mib for told, mib, _ in self.guests.speeds if told == server_id]

    def test_the_cap_of_the_request_is_there_before_the_stream(self):
        server_id, = self.boot("a")
        self.hypervisors.hold()
        batch = self.drain(max_bandwidth_mib_s=40)
        self.wait_for_stream(server_id)
        # 40 MiB/s on the wire, headers counted; capped at 38 QEMU sends 38.8
        self.assertEqual((server_id, 38, False), self.guests.speeds[0])
        shown = self.batch(batch["id"])
        self.assertAlmostEqual(40 << 20, shown["bandwidth_bytes_per_second"], delta=10)
        self.assertAlmostEqual(40 << 20, shown["servers"][0]["bandwidth_bytes_per_second"],
                               delta=10)
        self.hypervisors.release()
        batch = self.wait_for_batch(batch["id"], "completed")
        self.assertEqual({38}, set(self.speeds_of(server_id)))
        self.assertIsNone(batch["bandwidth_bytes_per_second"])

    def test_two_streams_share_the_link_by_need_and_again_after_a_takeover(self):
        busy, = self.boot("busy", dirty_pages_per_second=10_000, working_set_pages=9_000)
        idle, = self.boot("idle")
        self.hypervisors.hold()
        batch = self.drain(max_parallel=2, strategy="group")
        self.wait_for_stream(busy)
        self.wait_for_stream(idle)
        self.wait(lambda: self.speeds_of(busy) and self.speeds_of(idle), "caps on both")
        shares = {server_id: self.speeds_of(server_id)[-1] for server_id in (busy, idle)}
        self.assertGreater(shares[busy], shares[idle])
        self.assertLessEqual(sum(shares.values()), 100)
        self.conductor_service.kill()
        told = len(self.guests.speeds)
        self.conductor_service.start()
        again = self.wait(lambda: len(self.guests.speeds) >= told + 2 and self.guests.speeds[told:],
                          "the next conductor to apply the shares again")
        self.assertEqual(shares, {server_id: mib for server_id, mib, _ in again[:2]})
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")

    def test_who_did_not_leave_keeps_no_cap(self):
        server_id, = self.boot("a")
        self.config.set("conductor", max_attempts=1)
        self.hypervisors.fail(server_id)
        batch = self.wait_for_batch(self.drain(max_bandwidth_mib_s=40)["id"], "partial")
        self.assertEqual("failed", batch["servers"][0]["status"])
        self.assertEqual([38, NO_CAP], list(dict.fromkeys(self.speeds_of(server_id))))


class Help(base.BatchTestCase):
    def test_who_does_not_converge_is_paused_by_nova_once_its_memory_has_crossed(self):
        wild, = self.boot("wild", dirty_pages_per_second=51_200, working_set_pages=60_000)
        stays = self.drain(plan_only=True)
        self.wait_for_batch(stays["id"], "planned")
        self.assertIn("pre-copy cannot end", self.servers_of(stays["id"])[wild]["reason"])
        self.hypervisors.hold()
        batch = self.drain(on_non_convergence="pause")
        self.wait_for_stream(wild)
        plan = self.call("GET", f"/{batch['id']}/plan").body["plan"]
        projection = plan["groups"][0]["members"][0]["projection"]
        self.assertEqual(("never", "pause"), (projection["verdict"], projection["help"]))
        self.assertNotIn("forced", self.kinds_of_events(batch["id"]))
        self.guests.iteration = 2
        self.wait(lambda: "forced" in self.kinds_of_events(batch["id"]), "Nova to be asked")
        self.wait(lambda: wild in self.hypervisors.paused(), "Nova to pause it")
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual(("cmpb", "ACTIVE"), (self.host_of(wild), self.server(wild)["status"]))


class Inbound(base.BatchTestCase):
    HOSTS = ("cmpa", "cmpb", "cmpc")

    def test_a_host_takes_no_more_at_once_than_it_may(self):
        self.config.set("conductor", max_inbound=1)
        self.boot("a", host="cmpa")
        self.boot("b", host="cmpb")
        batch = self.drain(hosts=["cmpa", "cmpb"], max_parallel=2)
        batch = self.wait_for_batch(batch["id"], "completed")
        self.assertEqual(1, max(self.hypervisors.overlaps))
        self.assertEqual({"cmpc"}, {server["destination"] for server in batch["servers"]})

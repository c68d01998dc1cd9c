"""Faults of relays, of the link between them and of the destination, on the real cloud: every
guest stays whole, on one side.

Run by tools/test lab on a lab that is up with its relays. What needs no QEMU of its own
(certificates, replayed sessions, truncated streams, small dictionaries) is in
tests/unit/relay/test_faults.py.
"""
import contextlib
import pathlib
import time
import uuid

from tests.lab import relays

from nbmlab import daemon, drain, shell  # noqa: E402, isort: skip

_CUT = f"tcp dport {relays.PORT} drop"
#: What the destination's relay says to the source's.
_CUT_ANSWERS = f"tcp sport {relays.PORT} drop"
#: Of what arrives at a relay, in both directions.
_LOSS = (f"tcp dport {relays.PORT} numgen random mod 100 < 2 drop",
         f"tcp sport {relays.PORT} numgen random mod 100 < 2 drop")
#: What a QEMU that awaits a guest may take from now on.
_LITTLE_BYTES = 24 << 20
#: Of the 114 MiB of a stream those that need not be slow, and the link on which they go.
_MOST_BYTES = 72 << 20
_LINK_OF_MOST_MIB_PER_SECOND = 6.0


@contextlib.contextmanager
def little_memory(pid: int):
    """Let the kernel end a process when it takes more than a little memory from now on.

    Gives a function that tells whether it has done so.
    """
    root = pathlib.Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / "nbm-lab-little-memory"
    if not first:
        (root / "cgroup.subtree_control").write_text("+memory")
    group.mkdir(exist_ok=True)
    try:
        limit = "memory.limit_in_bytes" if first else "memory.max"
        (group / limit).write_text(str(_LITTLE_BYTES))
        (group / "cgroup.procs").write_text(str(pid))
        told = group / ("memory.oom_control" if first else "memory.events")
        yield lambda: "oom_kill 0" not in told.read_text().splitlines()
    finally:
        shell.wait_for("the end of what is in the group", 120,
                       lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


class RelayFaultsTest(relays.RelayTestCase):
    def fill(self, name: str) -> None:
        """Take all memory that Placement has left at a host, as another server's claim would."""
        provider, = self.admin.get("placement", f"/resource_providers?name={name}")[
            "resource_providers"]
        path = f"/resource_providers/{provider['uuid']}"
        has = self.admin.get("placement", f"{path}/inventories")["inventories"]["MEMORY_MB"]
        used = self.admin.get("placement", f"{path}/usages")["usages"]["MEMORY_MB"]
        left = int((has["total"] - has["reserved"]) * has["allocation_ratio"]) - used
        consumer = f"/allocations/{uuid.uuid4()}"
        self.addCleanup(self.admin.call, "placement", "DELETE", consumer)
        self.admin.call("placement", "PUT", consumer, {"allocations": [{
            "resource_provider": {"uuid": provider["uuid"]}, "resources": {"MEMORY_MB": left}}]})

    def test_the_destinations_relay_killed_before_the_first_byte(self):
        batch_id = self.begin()
        self.wait_for_redirect()
        self.kill_relay(self.destination)
        for server in self.finished(batch_id).values():
            self.assertIsNone(server["relay"], server)
            self.assertEqual(server["raw_bytes"], server["wire_bytes"], server)

    def test_the_sources_relay_killed_while_a_guest_stands_still(self):
        batch_id = self.begin()
        self.wait_for_redirect()
        self.wait_for_standstill()
        self.kill_relay(self.source)
        self.assert_broken_gone_plain(batch_id, self.finished(batch_id))

    def test_the_destinations_relay_killed_while_a_guest_stands_still(self):
        """Behind the end of its memory: all has arrived, and its source waits to be told so."""
        mover = self.ids["lab-web1"]
        told_before = self.relay_log_bytes()
        batch_id = self.planned(servers=[mover])
        self.link_at(_LINK_OF_MOST_MIB_PER_SECOND)
        self.start(batch_id)
        shell.wait_for("most of the stream", relays.BATCH_SECONDS,
                       lambda: self.sent(mover) > _MOST_BYTES, every_seconds=0.1)
        # the end takes longer than the rule
        self.link_at(1.5)
        self.wait_for_standstill()
        self.break_link(_CUT_ANSWERS, at=self.source)
        time.sleep(1)
        self.kill_relay_with_its_words(self.destination)
        self.mend()
        server, = self.ended(batch_id)["servers"]
        told, = self.told_of_stream(mover, told_before)
        self.assertIn("ram_end", told)
        self.assert_gone_plain(batch_id, server)
        self.assert_all_at(self.destination, but={*self.ids.values()} - {mover})

    def test_a_destination_that_is_full_when_the_migrations_begin(self):
        batch_id = self.planned()
        self.fill(self.destination)
        self.start(batch_id)
        batch = self.ended(batch_id, "partial")
        for server in batch["servers"]:
            self.assertEqual(("failed", self.source), (server["status"], server["source"]), server)
            self.assertIn("No valid host", server["reason"])
        self.assert_all_at(self.source)

    def test_a_destination_whose_memory_runs_out_in_the_stream(self):
        victim = self.ids["lab-slow"]
        spliced_before = self.statistics()["spliced_bytes"]
        self.link_at(self.SLOW_LINK_MIB_PER_SECOND)
        batch_id = self.begin()
        pids = [None]
        shell.wait_for("QEMU at the destination", relays.BATCH_SECONDS,
                       lambda: pids.append(self.arriving(victim)) or pids[-1], every_seconds=0.1)
        pid = pids[-1]
        with little_memory(pid) as killed:
            shell.wait_for("the end of QEMU for want of memory", relays.BATCH_SECONDS,
                           lambda: killed() and daemon.birth(pid) is None)
        self.link_at(0)
        servers = self.finished(batch_id)
        self.assert_gone_plain(batch_id, servers["lab-slow"])
        # its group was open still, so its second stream came to the relay
        self.assertGreaterEqual(self.statistics()["spliced_bytes"] - spliced_before,
                                servers["lab-slow"]["raw_bytes"])
        self.assertTrue(all(servers[name]["attempts"] == 1 and servers[name]["relay"]
                            for name in ("lab-web1", "lab-web2")), servers)

    def test_a_link_that_is_cut_in_the_stream_and_at_the_switchover(self):
        batch_id = self.caught()
        self.break_link(_CUT)
        time.sleep(3)
        self.assertIn("migrating", {
            server["status"] for server in drain.batch(batch_id)["servers"]})
        self.mend()
        self.link_at(self.LINK_MIB_PER_SECOND)
        self.wait_for_standstill()
        self.break_link(_CUT)
        time.sleep(2)
        self.mend()
        servers = self.finished(batch_id)
        self.assertEqual({1}, {server["attempts"] for server in servers.values()}, servers)
        self.assertTrue(all(server["relay"] for server in servers.values()), servers)

    def test_two_batches_at_once_over_a_link_that_loses_packets(self):
        self.break_link(*_LOSS)
        batches = [self.request(servers=[self.ids[name] for name in names])
                   for names in (("lab-web1",), ("lab-web2", "lab-slow"))]
        servers = [server for batch_id in batches for server in self.ended(batch_id)["servers"]]
        self.assert_all_at(self.destination)
        self.assertEqual({1}, {server["attempts"] for server in servers}, servers)
        self.assertTrue(all(server["relay"] for server in servers), servers)

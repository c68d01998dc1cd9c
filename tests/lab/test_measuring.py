"""What the real cloud knows of a guest that migrates: it is not measured, its stream tells of it.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first.
"""
import math
import time

from nova_batch_migrate import conf, context, exception, rpc
from nova_batch_migrate.agent import rpcapi
from nova_batch_migrate.planning.telemetry import ServerTelemetry
from tests.lab import base, test_drain

from nbmlab import (  # noqa: E402, isort: skip
    check,
    daemon,
    drain,
    host,
    layout,
    project,
    services,
    shell,
)
from nbmlab.families import FAMILIES  # noqa: E402, isort: skip

PAGE_BYTES = 4096
MIB = 1 << 20


class MeasuringTestCase(base.LabTestCase):
    """Speaks to the source's agent as the conductor does."""

    MEMBERS = test_drain.DrainTestCase.MEMBERS
    #: Its first round lasts some thirty seconds; who looks late still finds it under way.
    LINK_MIB_PER_SECOND = 4.0
    BUSY, OTHER = "lab-mid", "lab-web1"
    #: Half of what the busy one writes: its stream never comes to its end.
    ENDLESS_MIB_PER_SECOND = 1.2
    #: So near to the end of the first round the link becomes that slow.
    _NEARLY_BYTES = 16 * MIB
    #: A measurement that lasts longer than Nova prepares a migration, on a slow machine too.
    WINDOWS_SECONDS = (1.0, 25.0)
    #: What a round showed may be off what its guest has told: its kernel writes beside it, and the
    #: length of a round is known by looks two seconds apart.
    FACTOR = 1.4

    def setUp(self):
        super().setUp()
        self.busy, self.other = self.ids[self.BUSY], self.ids[self.OTHER]
        own = conf.new()
        conf.parse(own, [], [str(project.CONDUCTOR_CONF)])
        transport = rpc.get_agent_transport(own)
        self.addCleanup(transport.cleanup)
        self.agents = rpcapi.AgentAPI(own, transport)
        self.is_slow = False

    def forget_what_was_measured(self) -> None:
        """Start the source's agent anew: it then has no young figures to answer with."""
        daemon.stop(f"batch-agent-{self.source}")
        services.revive(layout.load_options())
        shell.wait_for("the agent", 60, self.answers, every_seconds=0.5)

    def answers(self) -> bool:
        try:
            return bool(self.agents.inventory(context.service_context(), self.source))
        except exception.AgentUnavailable:
            return False

    def asked(self, *server_ids: str, windows_seconds=(0.5, 1.0)) -> str:
        """Ask the source's agent to measure; return the job's id at once."""
        return self.agents.start_measure(
            context.service_context(), self.source, f"{self.id()}-{time.monotonic()}",
            list(server_ids), list(windows_seconds))["job"]

    def answer(self, job: str, meanwhile=lambda: None) -> dict[str, ServerTelemetry]:
        """Return what the agent answers, by server; call `meanwhile` again and again until then."""
        told = []

        def done() -> bool:
            meanwhile()
            told.append(self.agents.get_measure(context.service_context(), self.source, job))
            return told[-1]["state"] != "running"
        shell.wait_for("the end of a measurement", 90, done, every_seconds=0.3)
        self.assertEqual("done", told[-1]["state"], told[-1])
        return {each["id"]: ServerTelemetry.from_dict(each) for each in told[-1]["servers"]}

    def virsh(self, *words: str) -> str:
        return shell.run(*host.inside(layout.host_named(self.source)), "virsh", *words)

    def sampled_at(self, server_id: str) -> int:
        """Return when QEMU was last asked for a dirty rate, on QEMU's clock."""
        told = dict(line.strip().split("=") for line in self.virsh(
            "domstats", "--dirtyrate", server_id).splitlines() if "=" in line)
        return int(told["dirtyrate.calc_start_time"])

    def stream(self) -> tuple[int, int]:
        """Return the busy guest's round, from 1 on, and bytes left of it; 0 without a migration."""
        told = {name.strip(): value for name, _, value in (line.partition(":") for line in
                self.virsh("domjobinfo", "--rawstats", self.busy).splitlines())}
        return int(told.get("memory_iteration", 0)), int(told.get("memory_remaining", 0))

    def slow_down(self) -> None:
        """Let the stream not come to its end once it has nearly been through its first round."""
        round_number, left = (0, 0) if self.is_slow else self.stream()
        if round_number > 1 or (round_number and left < self._NEARLY_BYTES):
            self.link_at(self.ENDLESS_MIB_PER_SECOND)
            self.is_slow = True

    def touched_pages(self, first: check.Tick, last: check.Tick, seconds: float) -> float:
        """Return the distinct pages the busy guest writes to in that time, at the pace it told."""
        pages = FAMILIES["writer-mid"].load.working_set_mib * MIB / PAGE_BYTES
        pace = (last.wrote_pages - first.wrote_pages) / (last.up_seconds - first.up_seconds)
        return pages * -math.expm1(-pace * seconds / pages)

    def test_a_migrating_guest_is_not_measured_and_its_stream_tells_of_it(self):
        self.forget_what_was_measured()
        first = check.last_tick(self.busy)
        # the plain way, on which a stream's length is known; nobody measures it before
        batch_id = self.request(servers=[self.busy], urgent=True, dedup_scope="off")
        found = self.answer(self.asked(self.busy, self.other,
                                       windows_seconds=self.WINDOWS_SECONDS), self.slow_down)
        began = time.time()
        self.assertEqual("it began to migrate while it was measured", found[self.busy].error)
        self.assertIsNone(found[self.other].error)
        asked_of = {server: self.sampled_at(server) for server in (self.busy, self.other)}
        for server, at in asked_of.items():
            self.assertGreater(at, 0, server)

        found = self.answer(self.asked(self.busy, self.other), self.slow_down)
        self.assertEqual("it is migrating", found[self.busy].error)
        self.assertEqual(((), 0, None), (found[self.busy].windows, found[self.busy].present_pages,
                                         found[self.busy].history))
        self.assertIsNone(found[self.other].error)
        self.assertTrue(found[self.other].windows)
        self.assertEqual(asked_of[self.busy], self.sampled_at(self.busy))
        shell.wait_for("the third round", 150, lambda: self.stream()[0] > 2)
        ended, last = time.time(), check.last_tick(self.busy)
        self.admin.post("nova-api", f"{drain.BATCHES}/{batch_id}/action",
                        {"abort": {"running": "abort"}})
        self.ended(batch_id, "aborted")
        self.assertEqual({self.source}, set(self.hosts().values()))
        self.moved = check.snapshot(sorted(self.ids.values()))
        self.link_at(0)

        plan = drain.plan(self.planned(servers=[self.busy]))
        served, = (ServerTelemetry.from_dict(each) for telemetry in plan["request"]["hosts"]
                   for each in telemetry["servers"] if each["id"] == self.busy)
        self.assertGreater(self.sampled_at(self.busy), asked_of[self.busy])
        # nor is what was read while it began to migrate used now
        self.assertLess(max((window.seconds for window in served.windows
                             if window.source == "content-diff"), default=0.0),
                        0.9 * self.WINDOWS_SECONDS[-1])
        self.assertEqual([], [at for at in served.history.at_seconds if began < at < ended]
                         if served.history else [])
        rounds = [window for window in served.windows if window.source == "migration"]
        self.assertTrue(rounds, served)
        self.assertEqual("migration", served.touched.source)
        for window in rounds:
            wrote = self.touched_pages(first, last, window.seconds)
            shell.say(f"in {window.seconds:.1f} s its stream showed {window.changed_pages:.0f} "
                      f"touched pages; it wrote to {wrote:.0f}")
            self.assertTrue(1 / self.FACTOR < window.changed_pages / wrote < self.FACTOR, window)
        self.assert_guests_whole()

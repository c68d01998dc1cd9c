from oslotest import base

from nova_batch_migrate import conf, context, exception, rpc
from nova_batch_migrate.agent import domain_xml, domains, feedback, jobs, manager, rpcapi

LEAVING = {"type": 2, "operation": 5, "time_elapsed": 3500, "memory_total": 135012352,
           "memory_processed": 17874830, "memory_remaining": 114520064, "memory_bps": 13167150,
           "memory_dirty_rate": 33, "memory_iteration": 1, "disk_total": 7, "disk_remaining": 5}
ARRIVED = {"type": 3, "operation": 4, "time_elapsed": 12127, "setup_time": 12, "downtime": 414,
           "memory_processed": 120198007, "memory_normal": 29206, "memory_constant": 4092,
           "memory_iteration": 4}


class Host:
    """A hypervisor with one server that leaves and one that came."""

    def __init__(self):
        self.tuned = []
        self.where = {"leaving": domains.Presence("running", True, False),
                      "arrived": domains.Presence("running", False, False)}

    def _known(self, server):
        if server not in self.where:
            raise exception.AgentRefused(reason=f"Server {server} is not a domain of host cmpa.")

    def migrated_bytes(self):
        return {}

    def domains(self):
        definition = domain_xml.Definition("kvm", "web <1>", "p1", 1 << 28, (1 << 28,), ())
        return [domains.Domain(server, f"instance-{server}", 2, definition, presence, "")
                for server, presence in self.where.items()]

    def presence(self, server):
        return self.where.get(server)

    def outgoing_job(self, server):
        self._known(server)
        return LEAVING if server == "leaving" else None

    def arrived_job(self, server):
        self._known(server)
        return ARRIVED if server == "arrived" else None

    def set_migration_speed(self, server, mib_per_second):
        self.tuned.append((server, "MiB/s", mib_per_second))

    def set_migration_downtime(self, server, milliseconds):
        self.tuned.append((server, "ms", milliseconds))


class TestOverTheBus(base.BaseTestCase):
    """Client and endpoint with the project's own RPC between them."""

    def setUp(self):
        super().setUp()
        self.conf = conf.new()
        conf.parse(self.conf, [], [])
        self.conf.set_override("host", "cmpa")
        self.conf.set_override("agent_timeout_seconds", 2, "conductor")
        self.conf.set_override("transport_url", "fake:/", "agent_transport")
        transport = rpc.get_agent_transport(self.conf)
        self.host = Host()
        self.seen = feedback.Feedback()
        held = jobs.Jobs(lambda job, servers, windows, max_wait, seconds: (
            [{"id": server} for server in servers],
            {"page_classes": None}))
        endpoint = manager.AgentManager(
            self.conf, self.host, held, lambda servers: [{"id": i} for i in servers], self.seen)
        server = rpc.get_server(transport, rpc.agent_target("cmpa"), [endpoint])
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        self.api = rpcapi.AgentAPI(self.conf, transport)
        self.ctxt = context.service_context()

    def test_inventory(self):
        self.assertEqual(
            {"id": "leaving", "domain": "instance-leaving", "name": "web <1>", "project_id": "p1",
             "state": "running", "memory_bytes": 1 << 28, "vcpus": 2},
            self.api.inventory(self.ctxt, "cmpa")[0])

    def test_a_measure_job(self):
        job = self.api.start_measure(self.ctxt, "cmpa", "batch", ["a"], [0.5, 2.0])["job"]
        answer = self.api.get_measure(self.ctxt, "cmpa", job)
        while answer["state"] == "running":
            answer = self.api.get_measure(self.ctxt, "cmpa", job)
        self.assertEqual(("done", [{"id": "a"}]), (answer["state"], answer["servers"]))

    def test_what_is_known_without_measuring(self):
        self.assertEqual([{"id": "a"}], self.api.recall(self.ctxt, "cmpa", ["a"]))

    def test_a_lost_job_is_refused(self):
        error = self.assertRaises(exception.AgentRefused, self.api.get_measure, self.ctxt, "cmpa",
                                  "no-such-job")
        self.assertIn("start the measurement again", error.args[0])

    def test_progress_where_it_leaves(self):
        told = self.api.progress(self.ctxt, "cmpa", ["leaving", "arrived", "gone"])
        self.assertEqual(
            {"elapsed_seconds": 3.5, "memory_total_bytes": 135012352,
             "memory_processed_bytes": 17874830, "memory_remaining_bytes": 114520064,
             "dirty_rate_pages_per_second": 33, "iteration": 1, "bytes_per_second": 13167150,
             "disk_total_bytes": 7, "disk_remaining_bytes": 5, "status": "pre-copy"},
            told["leaving"])
        self.assertEqual((None, None), (told["arrived"], told["gone"]))

    def test_post_copy_is_told(self):
        self.host.where["leaving"] = domains.Presence("paused", True, True)
        told = self.api.progress(self.ctxt, "cmpa", ["leaving"])
        self.assertEqual("post-copy", told["leaving"]["status"])

    def test_figures_where_it_arrived(self):
        self.assertEqual(
            {"elapsed_seconds": 12.127, "setup_seconds": 0.012, "downtime_seconds": 0.414,
             "memory_transferred_bytes": 120198007, "normal_pages": 29206, "zero_pages": 4092,
             "iterations": 4}, self.api.completed(self.ctxt, "cmpa", "arrived"))
        self.assertIsNone(self.api.completed(self.ctxt, "cmpa", "leaving"))

    def test_presence(self):
        self.assertEqual({"present": True, "state": "running", "migrating": True,
                          "post_copy": False}, self.api.presence(self.ctxt, "cmpa", "leaving"))
        self.assertEqual({"present": False, "state": None, "migrating": False,
                          "post_copy": False}, self.api.presence(self.ctxt, "cmpa", "stranger"))

    def test_tune_writes_what_is_given(self):
        # under a cap of 9 or 10 MiB/s QEMU sends 10.02
        self.api.tune(self.ctxt, "cmpa", "leaving", bytes_per_second=10 * 2**20)
        self.api.tune(self.ctxt, "cmpa", "leaving", downtime_ms=300)
        self.api.tune(self.ctxt, "cmpa", "arrived", bytes_per_second=1000)
        self.api.tune(self.ctxt, "cmpa", "leaving", bytes_per_second=0)
        self.assertEqual([("leaving", "MiB/s", 8), ("leaving", "ms", 300),
                          ("arrived", "MiB/s", 1),
                          ("leaving", "MiB/s", (2**63 - 1) // 2**20)], self.host.tuned)

    def test_the_downtime_of_what_does_not_migrate_is_not_tuned(self):
        for server in ("arrived", "stranger"):
            self.assertRaises(exception.AgentRefused, self.api.tune, self.ctxt, "cmpa", server,
                              downtime_ms=300)
        self.assertEqual([], self.host.tuned)

    def test_strangers_are_refused(self):
        error = self.assertRaises(exception.AgentRefused, self.api.completed, self.ctxt, "cmpa",
                                  "stranger")
        self.assertIn("not a domain of host cmpa", error.args[0])

    def test_a_host_without_agent_is_named(self):
        error = self.assertRaises(exception.AgentUnavailable, self.api.inventory, self.ctxt,
                                  "cmpb")
        self.assertIn("host cmpb", str(error))

import json

import ddt
import fixtures
import libvirt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.agent import domains

OUT = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
IN = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
UUID = "0f7d5d0e-3b1f-4e0c-9d3e-2f5b6a7c8d9e"


def refusal(code):
    error = libvirt.libvirtError("refused")
    error.err = (code, 0, "refused", 2, "", "", "", 0, 0)
    return error


class Handle:
    """A domain of libvirt in one moment of its life."""

    def __init__(self, state=(libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED),
                 job=None, completed=None):
        self._state, self._job, self._completed = state, job, completed

    def state(self):
        return list(self._state)

    def jobStats(self, flags=0):
        if flags & libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED:
            # reading consumes them otherwise, and a second conductor would find nothing
            assert flags & libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
            return self._completed or {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        if isinstance(self._job, Exception):
            raise self._job
        return self._job or {"type": libvirt.VIR_DOMAIN_JOB_NONE}


class Connection:
    """A connection with one domain; dies after so many questions."""

    def __init__(self, handle=None, lives=100):
        self._handle, self._lives = handle, lives

    def isAlive(self):
        return self._lives > 0

    def getLibVersion(self):
        return 9_000_002

    getVersion = getLibVersion

    def lookupByUUIDString(self, uuid):
        self._lives -= 1
        if self._lives <= 0:
            raise refusal(libvirt.VIR_ERR_SYSTEM_ERROR)
        if uuid != UUID or self._handle is None:
            raise refusal(libvirt.VIR_ERR_NO_DOMAIN)
        if isinstance(self._handle, Exception):
            raise self._handle
        return self._handle


class DomainsCase(base.BaseTestCase):

    def hypervisor(self, *connections):
        waiting = iter(connections)
        self.useFixture(fixtures.MonkeyPatch("libvirt.open", lambda uri: next(waiting)))
        return domains.Hypervisor("cmpa", "test:///x", "/run/libvirt/qemu")

    def with_domain(self, **handle):
        return self.hypervisor(Connection(Handle(**handle)))


@ddt.ddt
class TestPresence(DomainsCase):

    def test_a_running_domain(self):
        self.assertEqual(domains.Presence("running", False, False),
                         self.with_domain().presence(UUID))

    def test_a_domain_that_is_off_has_no_job(self):
        state = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
        hypervisor = self.with_domain(state=state, job=refusal(libvirt.VIR_ERR_OPERATION_INVALID))
        self.assertEqual(domains.Presence("shutoff", False, False), hypervisor.presence(UUID))

    def test_leaving(self):
        job = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": OUT}
        self.assertEqual(domains.Presence("running", True, False),
                         self.with_domain(job=job).presence(UUID))

    def test_arriving_has_no_statistics(self):
        state = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
        job = refusal(libvirt.VIR_ERR_OPERATION_UNSUPPORTED)
        self.assertEqual(domains.Presence("paused", True, False),
                         self.with_domain(state=state, job=job).presence(UUID))

    @ddt.data((libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
              (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
              (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED))
    def test_post_copy_is_a_migration_under_way(self, state):
        found = self.with_domain(state=state).presence(UUID)
        self.assertEqual((True, True), (found.migrating, found.post_copy))

    def test_stopped_for_the_switchover_is_migrating(self):
        state = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
        self.assertEqual(domains.Presence("paused", True, False),
                         self.with_domain(state=state).presence(UUID))

    def test_another_job_is_no_migration(self):
        job = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
               "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP}
        self.assertFalse(self.with_domain(job=job).presence(UUID).migrating)

    def test_a_stranger_is_absent(self):
        self.assertIsNone(self.with_domain().presence(UUID.replace("0", "1")))


class TestJobs(DomainsCase):

    def test_statistics_of_a_migration_that_leaves(self):
        job = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "operation": OUT, "time_elapsed": 5}
        self.assertEqual(job, self.with_domain(job=job).outgoing_job(UUID))

    def test_no_migration_has_none(self):
        self.assertIsNone(self.with_domain().outgoing_job(UUID))
        self.assertIsNone(self.with_domain().arrived_job(UUID))

    def test_statistics_of_the_migration_that_came_in(self):
        done = {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED, "operation": IN, "downtime": 50}
        self.assertEqual(done, self.with_domain(completed=done).arrived_job(UUID))

    def test_a_migration_that_failed_to_leave_did_not_arrive(self):
        failed = {"type": libvirt.VIR_DOMAIN_JOB_FAILED, "operation": OUT}
        self.assertIsNone(self.with_domain(completed=failed).arrived_job(UUID))


class TestDirtyRate(DomainsCase):

    def start(self, *arguments):
        """Return what libvirt was asked for."""
        asked = []
        handle = Handle()
        handle.startDirtyRateCalc = lambda seconds, flags: asked.append((seconds, flags))
        self.useFixture(fixtures.MonkeyPatch(
            "libvirt_qemu.qemuMonitorCommand",
            lambda domain, command, flags: asked.append(json.loads(command))))
        self.hypervisor(Connection(handle)).start_dirty_rate(UUID, *arguments)
        return asked

    def test_page_sampling_unless_told_otherwise(self):
        self.assertEqual([(2, libvirt.VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING)], self.start(2))
        self.assertEqual([(2, libvirt.VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING)],
                         self.start(2, "dirty-ring"))

    def test_another_number_of_samples_goes_through_the_monitor(self):
        self.assertEqual([{"execute": "calc-dirty-rate", "arguments": {
            "calc-time": 2, "sample-pages": 4096, "mode": "page-sampling"}}],
            self.start(2, "page-sampling", 4096))


class TestConnection(DomainsCase):

    def test_a_stranger_is_refused(self):
        error = self.assertRaises(exception.AgentRefused,
                                  self.hypervisor(Connection()).outgoing_job, UUID)
        self.assertEqual(f"Server {UUID} is not a domain of host cmpa.", str(error))

    def test_a_dead_connection_is_opened_again(self):
        hypervisor = self.hypervisor(Connection(Handle(), lives=1), Connection(Handle()))
        self.assertEqual("running", hypervisor.presence(UUID).state)

    def test_a_refusal_of_a_living_libvirt_is_told(self):
        refused = Connection(refusal(libvirt.VIR_ERR_OPERATION_TIMEOUT))
        error = self.assertRaises(exception.AgentRefused,
                                  self.hypervisor(refused).presence, UUID)
        self.assertIn("libvirt of cmpa refused", str(error))

    def test_no_libvirt_says_what_to_do(self):
        def closed(uri):
            raise refusal(libvirt.VIR_ERR_SYSTEM_ERROR)
        hypervisor = self.hypervisor()
        self.useFixture(fixtures.MonkeyPatch("libvirt.open", closed))
        error = self.assertRaises(exception.AgentUnavailable, hypervisor.presence, UUID)
        self.assertIn("[agent] libvirt_uri", str(error))

    def test_versions(self):
        self.assertEqual(("9.0.2", "9.0.2"), self.hypervisor(Connection()).versions())


class TestDriver(base.BaseTestCase):
    """libvirt's own test driver: real XML, real handles."""

    def test_lists_and_describes_domains(self):
        hypervisor = domains.Hypervisor("cmpa", "test:///default", "/run/libvirt/qemu")
        domain, = hypervisor.domains()
        self.assertEqual(("test", "test", 8 << 30, 2, "/run/libvirt/qemu/test.pid", True),
                         (domain.domain, domain.definition.name, domain.definition.memory_bytes,
                          domain.vcpus, domain.pid_file, domain.has_memory))
        self.assertEqual(domain, hypervisor.domain(domain.id))
        self.assertEqual({}, hypervisor.migrated_bytes())

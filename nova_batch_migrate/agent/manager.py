"""What nova-batch-agent answers over RPC, and the service around it.

Called by conductors through rpcapi.py. Everything it does concerns servers of its own host only.
"""

import functools
import os
import threading
from collections.abc import Callable

import oslo_messaging as messaging

from nova_batch_migrate import exception, rpc
from nova_batch_migrate.agent import (
    bandwidth,
    domains,
    feedback,
    history,
    jobs,
    keys,
    measurement,
    preflight,
    recalling,
    relays,
    sampler,
)
from nova_batch_migrate.planning import allocation

#: Below state_path.
HISTORY_FILE = "history.json"
# Refusals are answers: oslo.messaging shall not log them as failures of this service.
_answers = messaging.expected_exceptions(exception.BatchMigrateError)


class AgentManager:
    """The RPC endpoint, version 1.1; the contract is rpcapi.AgentAPI's."""

    target = messaging.Target(version="1.1")

    def __init__(self, conf, hypervisor: domains.Hypervisor, measure_jobs: jobs.Jobs,
                 recall: Callable[[list[str]], list[dict]],
                 seen: feedback.Feedback | None = None):
        self._conf = conf
        self._hypervisor = hypervisor
        self._jobs = measure_jobs
        self._recall = recall
        self._feedback = seen or feedback.Feedback()
        self._link = bandwidth.LinkWatch(
            conf, hypervisor, functools.partial(relays.open_groups, conf))

    @_answers
    def preflight(self, ctxt) -> dict:
        """Return versions, accelerator, Nova's options, KSM and problems of this host."""
        return preflight.check(self._conf, self._hypervisor)

    @_answers
    def inventory(self, ctxt) -> list[dict]:
        """Return the domains of this host by server id."""
        return [{
            "id": domain.id,
            "domain": domain.domain,
            "name": domain.definition.name,
            "project_id": domain.definition.project_id,
            "state": domain.presence.state,
            "memory_bytes": domain.definition.memory_bytes,
            "vcpus": domain.vcpus,
        } for domain in self._hypervisor.domains()]

    @_answers
    def start_measure(self, ctxt, batch_id: str, servers: list[str],
                      windows_seconds: list[float], max_wait_seconds: float = 0.0,
                      seconds: float = 0.0) -> dict:
        """Start a measure job; servers that are not here come back with an error each."""
        # so that the link's other traffic is known when the job is done
        self._link.begin()
        return {"job": self._jobs.start(batch_id, servers, windows_seconds, max_wait_seconds,
                                        seconds)}

    @_answers
    def get_measure(self, ctxt, job: str, offset: int) -> dict:
        """Return the state of a job and a chunk of its results."""
        return self._jobs.get(job, offset)

    @_answers
    def recall(self, ctxt, servers: list[str]) -> list[dict]:
        """Return what is known of servers without measuring them; takes some seconds at most."""
        return self._recall(servers)

    @_answers
    def bandwidth(self, ctxt) -> dict:
        """Return the Bandwidth of the migration link; may take about a second."""
        return self._link.measure().to_dict()

    @_answers
    def tune(self, ctxt, server: str, bytes_per_second: int | None = None,
             downtime_ms: int | None = None) -> None:
        """Set the speed of a migration that leaves this host or is about to; 0 lifts the cap.

        ``bytes_per_second`` of payload are what QEMU is to send, not what libvirt is told. The
        downtime can be set of a running migration only.
        """
        if downtime_ms is not None and self._hypervisor.outgoing_job(server) is None:
            raise exception.AgentRefused(
                reason=f"Server {server} is not migrating away from {self._conf.host}: there is "
                "no downtime to tune.")
        if bytes_per_second is not None:
            self._hypervisor.set_migration_speed(
                server, allocation.qemu_cap_mib(bytes_per_second) if bytes_per_second
                else domains.NO_CAP_MIB_PER_SECOND)
        if downtime_ms is not None:
            self._hypervisor.set_migration_downtime(server, downtime_ms)

    @_answers
    def progress(self, ctxt, servers: list[str]) -> dict[str, dict | None]:
        """Return the counters of migrations that leave this host, by server; None without one.

        So also for one that has left: Nova has work with it for some seconds longer.
        """
        return {server: self._progress(server) for server in servers}

    def _progress(self, server: str) -> dict | None:
        presence = self._hypervisor.presence(server)
        job = presence and self._hypervisor.outgoing_job(server)
        if job is None:
            return None
        self._feedback.note(server, job)
        return {
            "elapsed_seconds": job["time_elapsed"] / 1000,
            "memory_total_bytes": job.get("memory_total", 0),
            "memory_processed_bytes": job.get("memory_processed", 0),
            "memory_remaining_bytes": job.get("memory_remaining", 0),
            "dirty_rate_pages_per_second": job.get("memory_dirty_rate", 0),
            "iteration": job.get("memory_iteration", 0),
            "bytes_per_second": job.get("memory_bps", 0),
            "disk_total_bytes": job.get("disk_total", 0),
            "disk_remaining_bytes": job.get("disk_remaining", 0),
            "status": "post-copy" if presence.post_copy else "pre-copy",
        }

    @_answers
    def completed(self, ctxt, server: str) -> dict | None:
        """Return the figures of the migration that brought a server here; None without one."""
        job = self._hypervisor.arrived_job(server)
        if job is None:
            return None
        return {
            "elapsed_seconds": job["time_elapsed"] / 1000,
            "setup_seconds": job.get("setup_time", 0) / 1000,
            "downtime_seconds": job.get("downtime", 0) / 1000,
            "memory_transferred_bytes": job.get("memory_processed", 0),
            "normal_pages": job.get("memory_normal", 0),
            "zero_pages": job.get("memory_constant", 0),
            "iterations": job.get("memory_iteration", 0),
        }

    @_answers
    def presence(self, ctxt, server: str) -> dict:
        """Return whether a domain is here, in which state, and whether it migrates."""
        found = self._hypervisor.presence(server)
        if found is None:
            return {"present": False, "state": None, "migrating": False, "post_copy": False}
        return {"present": True, "state": found.state, "migrating": found.migrating,
                "post_copy": found.post_copy}


    @_answers
    def relay(self, ctxt) -> dict | None:
        """Return what conductors need of this host's relay; None where none answers."""
        return relays.describe(self._conf)

    @_answers
    def open_group(self, ctxt, group: dict) -> None:
        """Open a group at this host's relay."""
        with relays.refusals():
            relays.open_group(self._conf, group)

    @_answers
    def close_group(self, ctxt, group_id: str) -> dict:
        """Close a group; its statistics where it left this host."""
        with relays.refusals():
            return relays.client(self._conf).close_group(group_id)

    @_answers
    def leave_group(self, ctxt, group_id: str, server: str) -> None:
        """Let the further connections of a server go the plain way."""
        with relays.refusals():
            relays.client(self._conf).leave_group(group_id, server)

    @_answers
    def limit_group(self, ctxt, group_id: str, bytes_per_second: float | None) -> None:
        """Cap the wire bytes of a group that leaves this host."""
        with relays.refusals():
            relays.client(self._conf).limit(group_id, bytes_per_second)

    @_answers
    def relay_statistics(self, ctxt) -> dict:
        """Return the counters of the groups that leave this host."""
        with relays.refusals():
            return relays.client(self._conf).statistics()


class AgentService:
    """The agent of one host; cmd/agent.py starts and stops it."""

    def __init__(self, conf):
        self._conf = conf
        self._server = None
        self._sampler = None

    def start(self) -> None:
        """Listen for conductors."""
        conf = self._conf
        hypervisor = domains.Hypervisor(conf.host, conf.agent.libvirt_uri,
                                        conf.agent.libvirt_pid_path)
        seen = feedback.Feedback()
        self._sampler = sampler.Sampler(conf, hypervisor, history.Histories(
            os.path.join(conf.state_path, HISTORY_FILE) if conf.agent.history else None))
        parts = measurement.Parts(
            hypervisor, keys.KeySource(conf.agent.fingerprint_secret), self._sampler, seen,
            measurement.Recent(conf.agent.reuse_seconds))
        self._server = rpc.get_server(
            rpc.get_agent_transport(conf), rpc.agent_target(conf.host),
            [AgentManager(conf, hypervisor,
                          jobs.Jobs(functools.partial(measurement.measure, conf, parts)),
                          functools.partial(recalling.recall, conf, parts), seen)])
        self._server.start()
        self._sampler.start()
        # It takes seconds to come up on a busy host: not within a conductor's first call.
        threading.Thread(target=preflight.privilege_problems, daemon=True).start()

    def stop(self) -> None:
        """Stop listening; a measurement under way ends with the process."""
        self._server.stop()
        self._server.wait()
        self._sampler.stop()

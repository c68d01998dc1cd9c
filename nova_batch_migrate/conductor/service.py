"""nova-batch-conductor as a service: the RPC server and the loop that works on active batches.

Several conductors may run: a batch belongs to the one that holds its lease. Called by cmd.
"""

import collections
import concurrent.futures
import os
import threading
import time
import uuid

from oslo_log import log

from nova_batch_migrate import exception, rpc
from nova_batch_migrate.agent import rpcapi as agent_rpcapi
from nova_batch_migrate.clients import neutron, nova, placement
from nova_batch_migrate.conductor import (
    allocator,
    executor,
    gangs,
    healing,
    manager,
    measuring,
    planner,
    reconciler,
    relays,
    state,
)
from nova_batch_migrate.db import api as db

LOG = log.getLogger(__name__)
#: Of one processor: what following a batch takes at most, where Nova is slow to say what is.
FOLLOW_SHARE = 0.2
MOST_REST_SECONDS = 2.5
#: While guests of a set stand still what a pass asks of agents, Nova and libvirt would take the
#: processors from what lets them go on.
SWITCHING_REST_SECONDS = 5.0


def make_reconciler(conf, nova_client, agents) -> reconciler.Reconciler:
    """Put the parts together; the clients read their own option groups."""
    placement_client = placement.PlacementClient(conf)
    healer = healing.Healer(nova_client, placement_client, neutron.NeutronClient(conf), agents)
    through = relays.Relays(agents)
    sets = gangs.Gangs(conf, through, healer)
    return reconciler.Reconciler(
        conf, nova_client,
        executor.Executor(conf, nova_client, agents, healer, through, sets),
        measuring.Measurer(conf, agents),
        planner.Planner(conf, nova_client, placement_client, through),
        allocator.Allocator(agents, allocator.Steering(agents)), through, sets)


class Rests:
    """How long batches are left alone whose migrations are followed and nothing else is due."""

    def __init__(self):
        self._until: dict[str, float] = {}

    def note(self, batch_id: str, done: state.Pass, took_seconds: float) -> None:
        """Take in that a pass has ended: only one that followed calls for a rest."""
        self._until.pop(batch_id, None)
        if done is state.Pass.SWITCHING:
            self._until[batch_id] = time.monotonic() + SWITCHING_REST_SECONDS
        elif done is state.Pass.FOLLOWED:
            self._until[batch_id] = time.monotonic() + min(
                MOST_REST_SECONDS, took_seconds * (1 / FOLLOW_SHARE - 1))

    def over(self, batch_id: str) -> bool:
        """Tell whether a batch is to be looked at again."""
        return time.monotonic() >= self._until.get(batch_id, 0.0)

    def end(self, batch_id: str) -> None:
        """Let a batch be looked at at once: somebody wants something of it."""
        self._until.pop(batch_id, None)


class ConductorService:
    """``start`` and ``stop``; threads of its own, no state that a restart would miss."""

    def __init__(self, conf):
        self._conf = conf
        self._owner = f"{conf.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        nova_client, agents = nova.NovaClient(conf), agent_rpcapi.AgentAPI(conf)
        self._reconciler = make_reconciler(conf, nova_client, agents)
        self._server = rpc.get_server(
            rpc.get_transport(conf), rpc.conductor_target(conf.host),
            [manager.ConductorManager(conf, nova_client, relays.Relays(agents), self.wake)])
        self._ended = threading.Event()
        self._work = threading.Event()
        self._busy: set[str] = set()
        self._rests = Rests()
        self._said: dict[str, str] = collections.defaultdict(str)
        self._pool = concurrent.futures.ThreadPoolExecutor(conf.conductor.workers)
        self._loop = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        self._server.start()
        self._loop.start()

    def stop(self) -> None:
        """Take no new calls, end the present passes, give the leases back."""
        self._server.stop()
        self._server.wait()
        self._ended.set()
        self._work.set()
        self._loop.join()
        self._pool.shutdown(wait=True)
        for batch in db.active_batches():
            db.release_lease(batch["id"], self._owner)

    def wake(self, batch_id: str, empty: bool = False) -> None:
        """Look at the batches now; one without servers is brought to its end before returning."""
        if empty and db.acquire_lease(batch_id, self._owner, self._conf.conductor.lease_seconds):
            while self._reconciler.pass_over(batch_id):
                LOG.debug("batch %s has no servers: next step", batch_id)
        self._rests.end(batch_id)
        self._work.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._work.wait(self._conf.conductor.reconcile_interval_seconds)
            self._work.clear()
            try:
                self._look()
            except Exception:
                # the database may be away for a while; nothing is lost by looking again
                LOG.exception("could not read the active batches; trying again")
                self._ended.wait(self._conf.conductor.reconcile_interval_seconds)

    def _look(self) -> None:
        """Renew the leases that are held, take those that are free, and work on them."""
        for batch in db.active_batches():
            if self._ended.is_set() or _waits(batch):
                continue
            mine = db.acquire_lease(batch["id"], self._owner, self._conf.conductor.lease_seconds)
            if mine and batch["id"] not in self._busy \
                    and self._rests.over(batch["id"]):
                self._busy.add(batch["id"])
                self._pool.submit(self._pass, batch["id"])

    def _pass(self, batch_id: str) -> None:
        done, begun = state.Pass.OVER, time.monotonic()
        try:
            done = self._reconciler.pass_over(batch_id)
            self._said.pop(batch_id, None)
        except exception.BatchNotFound:
            LOG.info("batch %s was deleted", batch_id)
        except (exception.PlanningError, exception.NovaPermanentError) as error:
            LOG.exception("batch %s cannot go on", batch_id)
            self._reconciler.fail(batch_id, error)
        except Exception as error:
            # anything else may pass: the batch stays as it is and the operator is told once
            LOG.exception("batch %s: this pass failed; trying again", batch_id)
            self._tell(batch_id, f"{_words(error)}; trying again")
        finally:
            self._rests.note(batch_id, done, time.monotonic() - begun)
            self._busy.discard(batch_id)
            if done is state.Pass.STEPPED:
                self._work.set()

    def _tell(self, batch_id: str, text: str) -> None:
        if self._said[batch_id] != text:
            self._said[batch_id] = text
            db.add_event(batch_id, "warning", text)


def _waits(batch: dict) -> bool:
    """A plan nobody has started, replanned or aborted needs no look."""
    control = batch["control"]
    return batch["status"] == "planned" and not (
        control["started"] or control["replan"] or control["abort"])


def _words(error: Exception) -> str:
    if isinstance(error, exception.BatchMigrateError):
        return error.text
    return f"{type(error).__name__}: {error}"

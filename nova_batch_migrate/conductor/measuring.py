"""Measuring as the conductor sees it: jobs at the agents, started, polled, put together.

Called by the reconciler. Holds nothing itself: jobs live in the batch's ``state``, results in its
``telemetry``. A job that an agent lost (it was restarted) is started again.
"""

import datetime
import time
from collections.abc import Callable, Sequence

from oslo_utils import timeutils

from nova_batch_migrate import exception
from nova_batch_migrate.db import api as db
from nova_batch_migrate.planning import reading, telemetry

MAX_REFUSALS = 3
#: To compare pages before and after, and to read all of them once, on a host that is busy: what
#: measuring takes of servers with little memory, before any of them moves.
LOOK_SECONDS = 3.0
#: While all else waits for a measurement its agent is asked so often, so many times in one pass:
#: that costs a call to it, and a pass much more.
END_LOOK_SECONDS, END_LOOKS = 0.1, 4
SURE_READ_BYTES_PER_SECOND = 1e9
#: Of the time for measuring: a longer window would leave none to read in.
_LONGEST_WINDOW_SHARE = 0.45


def windows(wanted: Sequence[float], seconds: float) -> list[float]:
    """Return the windows that fit into so many seconds of measuring (0: all), at least two."""
    told = sorted(float(each) for each in wanted)
    fitting = [each for each in told if not seconds or each <= _LONGEST_WINDOW_SHARE * seconds]
    return fitting if len(fitting) > 1 else told[:2]


def most_seconds(conf, size_bytes: int) -> float:
    """Return how long migrations may wait for measuring servers with so much memory.

    ``conf`` is the group [conductor].
    """
    return min(conf.measure_seconds, LOOK_SECONDS + size_bytes / SURE_READ_BYTES_PER_SECOND)


class Measurer:
    """Starts and polls measure jobs over the agents' RPC."""

    def __init__(self, conf, agents, sleep: Callable[[float], None] = time.sleep):
        self._conf = conf.conductor
        self._agents = agents
        self._sleep = sleep

    @staticmethod
    def start(servers_by_host: dict[str, list[str]], purpose: str) -> dict:
        """Return the new ``state["measure"]``; the jobs are asked for at the first poll."""
        return {"purpose": purpose, "state": "running", "error": None,
                "started_at": timeutils.utcnow().isoformat(),
                "hosts": {host: {"job": None, "servers": servers, "done": False, "refusals": 0}
                          for host, servers in sorted(servers_by_host.items())}}

    def poll(self, ctxt, batch: dict, measure: dict) -> dict:
        """Advance every host's job, or look for its end a few times; return ``state["measure"]``.

        Telemetry of a host that is done is written to the batch. Unreachable agents are asked
        again until measure_timeout_seconds are over.
        """
        found = self._poll_once(ctxt, batch, measure)
        for _ in range(END_LOOKS - 1):
            # a second host's end has time: its measuring is beside that of the first
            left = [job for job in found["hosts"].values() if not job["done"]]
            if found["purpose"] == "regroup" or found["state"] != "running" or len(left) > 1 \
                    or not left[0].get("preflight"):
                break
            self._sleep(END_LOOK_SECONDS)
            found = self._poll_once(ctxt, batch, found)
        return found

    def _poll_once(self, ctxt, batch: dict, measure: dict) -> dict:
        problems = []
        for host, job in measure["hosts"].items():
            if job["done"]:
                continue
            try:
                self._step(ctxt, batch, host, job, measure["purpose"])
            except exception.AgentRefused as error:
                problems.append(f"{host}: {error.text}")
                job["job"], job["refusals"] = None, job["refusals"] + 1
                if job["refusals"] >= MAX_REFUSALS:
                    return measure | {"state": "failed", "error": problems[-1]}
                db.add_event(batch["id"], "retry", f"measuring again: {problems[-1]}")
            except exception.AgentUnavailable as error:
                problems.append(error.text)
        if all(job["done"] for job in measure["hosts"].values()):
            servers = sum(len(job["servers"]) for job in measure["hosts"].values())
            if servers:
                known = (" by what is known of them, unmeasured (urgent)"
                         if batch["request"].get("urgent") and measure["purpose"] != "regroup"
                         else "")
                db.add_event(batch["id"], "measured",
                             f"{servers} servers of {', '.join(sorted(measure['hosts']))}{known}",
                             request_id=ctxt.request_id)
            return measure | {"state": "done"}
        started = datetime.datetime.fromisoformat(measure["started_at"])
        if timeutils.delta_seconds(started, timeutils.utcnow()) > \
                self._conf.measure_timeout_seconds:
            missing = [host for host, job in measure["hosts"].items() if not job["done"]]
            return measure | {"state": "failed", "error": (
                f"measuring {', '.join(missing)} did not end within "
                f"{self._conf.measure_timeout_seconds} s. {' '.join(sorted(set(problems)))}"
            ).strip()}
        return measure

    def _step(self, ctxt, batch: dict, host: str, job: dict, purpose: str) -> None:
        if batch["request"].get("urgent") and purpose != "regroup":
            self._store(ctxt, batch, host, self._agents.recall(ctxt, host, job["servers"]), None,
                        self._agents.preflight(ctxt, host))
            job["done"] = True
            return
        if job["job"] is None:
            # later ones run beside migrations, and what was seen following servers is kept
            max_wait = batch["request"].get("max_wait_seconds") or 0 if purpose != "regroup" else 0
            seconds = self._seconds(batch, job["servers"])
            job["job"] = self._agents.start_measure(
                ctxt, host, batch["id"], job["servers"],
                windows(self._conf.measure_windows_seconds, seconds),
                float(max_wait), seconds)["job"]
            return
        answer = self._agents.get_measure(ctxt, host, job["job"], 0)
        if answer["state"] == "failed":
            raise exception.AgentRefused(
                reason=f"The agent of {host} could not measure: {answer['error']}")
        if "preflight" not in job:
            # beside the measuring, so that nobody waits for it
            job["preflight"] = self._agents.preflight(ctxt, host)
        if answer["state"] != "done":
            return
        servers = list(answer["servers"])
        while answer["next_offset"] is not None:
            answer = self._agents.get_measure(ctxt, host, job["job"], answer["next_offset"])
            servers += answer["servers"]
        self._store(ctxt, batch, host, servers, answer["host"], job.pop("preflight"))
        job["done"] = True

    def _seconds(self, batch: dict, servers: list[str]) -> float:
        """Return how long migrations may wait for measuring; where none are to begin, no limit."""
        if batch["request"]["plan_only"] and not batch["control"]["started"]:
            return 0.0
        size = sum(row["memory_bytes"] or 0 for row in db.servers_of(batch["id"])
                   if row["server_id"] in servers)
        return most_seconds(self._conf, size)

    def _store(self, ctxt, batch: dict, host: str, servers: list[dict],
               common: dict | None, preflight: dict) -> None:
        """Merge a host's figures: new ones replace old ones, server by server.

        Numbers of page sequences are those of one measurement: older sequences mean nothing beside
        new ones, and are dropped.
        """
        names = {row["server_id"]: row["name"] for row in db.servers_of(batch["id"])}
        # a wrong figure of one server is no reason to give a whole batch up
        servers = [reading.server(server, host, names.get(server["id"]) or "").to_dict()
                   for server in servers]
        stored = dict(db.get_batch(batch["id"])["telemetry"] or {})
        known = {server["id"]: server | {"sequence": None}
                 for server in stored.get(host, {}).get("servers", ())}
        known.update({server["id"]: server for server in servers
                      if not server.get("error") or known.get(server["id"], server).get("error")})
        whole = {
            "host": host,
            "bandwidth": self._agents.bandwidth(ctxt, host),
            "options": telemetry.MigrationOptions.from_nova(preflight["nova_options"]).to_dict(),
            "servers": [known[key] for key in sorted(known)]}
        value = reading.host({**(common or {}), **whole}, host)
        stored[host] = value.to_dict()
        db.update_batch(batch["id"], {"telemetry": stored})
        for problem in (*value.unreadable, *(f"{host}: {told}" for told in preflight["problems"])):
            db.add_event(batch["id"], "warning", problem)

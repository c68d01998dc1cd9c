"""Measure jobs: started by one call, polled by others, forgotten ten minutes after their end.

Used by manager.py. Jobs live in this process only; a conductor starts a lost one again.
"""

import collections.abc
import dataclasses
import threading
import time
import uuid

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import scan

LOG = log.getLogger(__name__)

#: Servers in one answer.
CHUNK = 50
KEEP_SECONDS = 600

#: (job, servers, windows_seconds, max_wait_seconds, seconds) -> (ServerTelemetry dicts, fields of
#: HostTelemetry)
Measure = collections.abc.Callable[[str, list[str], list[float], float, float],
                                   tuple[list[dict], dict]]


@dataclasses.dataclass
class _Job:
    id: str
    asked: tuple
    state: str = "running"
    error: str | None = None
    servers: list[dict] = dataclasses.field(default_factory=list)
    host: dict | None = None
    ended_at: float | None = None


class Jobs:
    """Runs one measurement at a time, so that memory and reading stay bounded for the host."""

    def __init__(self, measure: Measure):
        self._measure = measure
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def start(self, batch_id: str, servers: list[str], windows_seconds: list[float],
              max_wait_seconds: float = 0.0, seconds: float = 0.0) -> str:
        """Start a job and return its id; one that is already running for the same is returned.

        Reading takes about ``seconds`` at most where that is not 0.
        """
        if not windows_seconds or min(windows_seconds) <= 0:
            raise exception.AgentRefused(reason="windows_seconds must be lengths above 0")
        asked = (batch_id, tuple(servers), tuple(windows_seconds), max_wait_seconds, seconds)
        with self._lock:
            self._forget_old()
            for job in self._jobs.values():
                if job.asked == asked and job.state == "running":
                    return job.id
            job = _Job(str(uuid.uuid4()), asked)
            self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job,), name=f"measure-{job.id}",
                         daemon=True).start()
        return job.id

    def get(self, job_id: str, offset: int) -> dict:
        """Return state and, of a job that is done, up to CHUNK servers from ``offset`` on."""
        with self._lock:
            self._forget_old()
            job = self._jobs.get(job_id)
        if job is None:
            raise exception.AgentRefused(
                reason=f"There is no measure job {job_id}: start the measurement again.")
        end = offset + CHUNK
        is_last = job.state != "running" and end >= len(job.servers)
        return {
            "state": job.state,
            "progress": _progress(job),
            "error": job.error,
            "servers": job.servers[offset:end],
            "next_offset": end if end < len(job.servers) else None,
            "host": job.host if is_last else None,
        }

    def _run(self, job: _Job) -> None:
        _, servers, windows_seconds, max_wait_seconds, seconds = job.asked
        with self._turn:
            try:
                found = self._measure(job.id, list(servers), list(windows_seconds),
                                      max_wait_seconds, seconds)
            # the thread's end: whatever it is, the conductor is told instead of waiting
            except Exception as error:  # noqa: BLE001
                LOG.exception("measure job %s failed", job.id)
                job.error = f"{type(error).__name__}: {error}"
                job.state = "failed"
            else:
                job.servers, job.host = found
                job.state = "done"
            job.ended_at = time.monotonic()

    def _forget_old(self) -> None:
        too_old = time.monotonic() - KEEP_SECONDS
        self._jobs = {job.id: job for job in self._jobs.values()
                      if job.ended_at is None or job.ended_at > too_old}


def _progress(job: _Job) -> int:
    if job.state != "running":
        return 100
    try:
        return int(scan.progress(job.id))
    except privsep.FAILURES:
        # the measurement itself notices, and says so
        return 0

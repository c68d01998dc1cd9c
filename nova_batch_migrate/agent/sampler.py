"""Samples the dirty rate of every server once a minute, and follows servers closely when asked.

The thread of the agent's history; measurement.py asks it to follow. A server that migrates is not
looked at, and what was seen while its migration began is thrown away (design 5).
"""

import math
import random
import threading
import time

from oslo_log import log

from nova_batch_migrate import exception, privsep
from nova_batch_migrate.agent import glances, history
from nova_batch_migrate.planning.telemetry import PAGE_BYTES, History

LOG = log.getLogger(__name__)

MIB = 1 << 20
INTERVAL_SECONDS = 60.0
#: The window of a sample of the history.
WINDOW_SECONDS = 2.0
#: Compared with: the glance 2 s before, and the last one of the sample before.
_HISTORY_LAGS = [1, 2]
#: Then other pages are taken: no server is judged by an unlucky choice for an hour.
_SAME_PAGES_SECONDS = 900.0
_TICK_SECONDS = 1.0
_SAVE_SECONDS = 60.0
#: Of a followed server: the glance before, and others to see how large its working set is.
_FOLLOW_LAGS = [1, 4, 16]
FOLLOW_INTERVAL_SECONDS = 1.0
#: Pages of all followed servers that are read in a second, and the least of each.
_FOLLOW_PAGES = 1 << 16
_MOST_PAGES = 4096
_LEAST_PAGES = 512
#: Times the longest wait: 2.5 periods, of which at most half are not open to a wait.
_FOLLOW_WAITS = 5.0
#: So many samples of an hour show a period as well as following does.
_ENOUGH_SAMPLES = 30
#: Who was followed less long ago is not followed again.
_FOLLOWED_SECONDS = 600.0


class Sampler:
    """Fills ``histories``; ``start`` begins the thread, ``stop`` ends it and keeps the file."""

    def __init__(self, conf, hypervisor, histories: history.Histories):
        self._conf = conf.agent
        self._hypervisor = hypervisor
        self.histories = histories
        self._due: dict[str, float] = {}
        #: server -> when it was followed, and what it was seen to do.
        self._followed: dict[str, tuple[float, History]] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample, unless [agent] history is off."""
        if self._conf.history:
            self._thread = threading.Thread(target=self._run, name="history", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread behind the sample it is at, and keep what there is."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * WINDOW_SECONDS)
            self.histories.save()

    def _run(self) -> None:
        saved = time.monotonic()
        while not self._stopped.wait(_TICK_SECONDS):
            try:
                self.tick(time.monotonic())
            except (exception.BatchMigrateError, *privsep.FAILURES) as error:
                LOG.warning("no dirty rates for the history just now: %s", error)
                self._stopped.wait(INTERVAL_SECONDS / 4)
            if time.monotonic() - saved > _SAVE_SECONDS:
                self.histories.save()
                saved = time.monotonic()

    def tick(self, now: float) -> None:
        """Sample the servers whose turn it is."""
        due = self._take_due(now)
        if not due:
            return
        domains = {domain.id: domain for domain in self._hypervisor.domains()}
        self._forget(set(domains))
        here = [domains[server] for server in due
                if server in domains and _may_be_looked_at(domains[server])]
        if not here:
            return
        series = f"history-{now // _SAME_PAGES_SECONDS:.0f}"
        self._glance(series, here, self._conf.history_pages, _HISTORY_LAGS)
        time.sleep(WINDOW_SECONDS)
        looked = self._glance(series, here, self._conf.history_pages, _HISTORY_LAGS)
        for server, found in looked.items():
            if self._migrates(server):
                continue
            windows = tuple((seconds, pages) for lag, seconds, pages in found["windows"]
                            if lag == 1 or seconds < 2 * INTERVAL_SECONDS)
            if windows:
                self.histories.add(server, history.Sample(
                    found["at"] - min(windows)[0], windows))

    def _take_due(self, now: float) -> list[str]:
        """Return the servers that are due, and set when they are again.

        Each at a random moment of each of its minutes: that staggers them, and samples at uneven
        distances show periods that are shorter than a minute.
        """
        if not self._due or now >= min(self._due.values()):
            for domain in self._hypervisor.domains():
                self._due.setdefault(domain.id, now + random.random() * INTERVAL_SECONDS)
        due = [server for server, at in self._due.items() if at <= now]
        for server in due:
            minute = max(math.floor(self._due[server] / INTERVAL_SECONDS) + 1,
                         math.floor(now / INTERVAL_SECONDS))
            self._due[server] = (minute + random.random()) * INTERVAL_SECONDS
        return due

    def _forget(self, here: set[str]) -> None:
        self._due = {server: at for server, at in self._due.items() if server in here}
        self._followed = {i: found for i, found in self._followed.items() if i in here}
        self.histories.keep_only(here)

    def history_of(self, domain) -> History | None:
        """Return the hour's history of a server, or what was seen following it if it knows more."""
        seen_at, followed = self._followed.get(domain.id, (0.0, None))
        if time.monotonic() - seen_at > history.SPAN_SECONDS:
            followed = None
        hour = self.histories.of(domain.id, domain.definition.memory_bytes // PAGE_BYTES)
        if followed is None or (hour is not None and hour.periodicity is not None):
            return hour
        return followed if hour is None or followed.periodicity is not None else hour

    def follow_for(self, domains: list, max_wait_seconds: float) -> None:
        """Follow those that have too little history for a batch that waits so long at most.

        Long enough for every period of which a quiet moment comes within that time. What they were
        seen to do is remembered for history_of.
        """
        seconds = min(self._conf.follow_seconds, _FOLLOW_WAITS * max_wait_seconds)
        if seconds <= 0:
            return
        fresh = time.monotonic() - _FOLLOWED_SECONDS
        unknown = [domain for domain in domains
                   if len(self.histories.samples(domain.id)) < _ENOUGH_SAMPLES
                   and self._followed.get(domain.id, (fresh, None))[0] <= fresh]
        for server, found in self.follow(unknown, seconds).items():
            self._followed[server] = time.monotonic(), found

    def look_at(self, domains: list, seconds: float) -> None:
        """Look for so long at those of which nothing is known yet; remembered for history_of."""
        unknown = [domain for domain in domains if self.history_of(domain) is None]
        for server, found in self.follow(unknown, seconds).items():
            self._followed[server] = time.monotonic(), found

    def follow(self, domains: list, seconds: float) -> dict[str, History]:
        """Look at servers about once a second for so long; return what each was seen to do.

        One that migrates meanwhile is left out. The more servers, the fewer pages of each.
        """
        if not domains:
            return {}
        pages = max(_LEAST_PAGES, min(_MOST_PAGES, _FOLLOW_PAGES // len(domains)))
        interval = max(FOLLOW_INTERVAL_SECONDS, pages * len(domains) / _FOLLOW_PAGES)
        series = f"follow-{threading.get_ident()}-{time.monotonic()}"
        samples: dict[str, list[history.Sample]] = {domain.id: [] for domain in domains}
        begun = time.monotonic()
        looks = 0
        while time.monotonic() - begun < seconds and not self._stopped.is_set():
            domains = [d for d in domains if not self._migrates(d.id)]
            for server, found in self._glance(series, domains, pages, _FOLLOW_LAGS).items():
                windows = tuple((length, changed) for _, length, changed in found["windows"])
                if windows:
                    samples[server].append(history.Sample(
                        found["at"] - min(windows)[0], windows))
            looks += 1
            self._stopped.wait(max(0.0, begun + looks * interval - time.monotonic()))
        stayed = {d.id: d for d in domains if not self._migrates(d.id)}
        return {server: history.describe(
                    found, stayed[server].definition.memory_bytes // PAGE_BYTES)
                for server, found in samples.items() if found and server in stayed}

    def _glance(self, series: str, domains: list, pages: int, lags: list[int]) -> dict[str, dict]:
        wanted = [{"id": domain.id, "pid_file": domain.pid_file,
                   "blocks_bytes": list(domain.definition.memory_blocks_bytes)}
                  for domain in domains]
        found = glances.glance(series, wanted, pages, lags, self._conf.read_mib_s * MIB)
        for server in found:
            if "error" in server:
                LOG.debug("no glance at server %s: %s", server["id"], server["error"])
        return {server["id"]: server for server in found if "error" not in server}

    def _migrates(self, server_id: str) -> bool:
        presence = self._hypervisor.presence(server_id)
        return presence is None or presence.migrating


def _may_be_looked_at(domain) -> bool:
    return domain.has_memory and not domain.presence.migrating

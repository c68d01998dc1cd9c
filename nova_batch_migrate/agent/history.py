"""The dirty rates of the last hour, per server, kept over restarts of the agent [0049, 0109].

Filled by sampler.py, read by measurement.py. A file holds it, replaced as a whole; one that can't
be read is left behind with a warning. Never measures anything.
"""

import dataclasses
import json
import math
import os
import tempfile
import threading
import time

from oslo_log import log

from nova_batch_migrate.planning import dirty_model, periodicity
from nova_batch_migrate.planning.telemetry import DirtyModel, DirtyWindow, History

LOG = log.getLogger(__name__)

SPAN_SECONDS = 3600.0
MOST_SAMPLES = 60
#: A file of 10,000 servers has some 30 MiB; beyond this the oldest samples are not written.
MOST_FILE_BYTES = 64 << 20
#: Two windows that differ by less are of one length.
_SAME_LENGTH = 1.3
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one look at a server gave: windows of (seconds, distinct changed pages)."""

    #: Begin of the shortest window, seconds since the epoch.
    at_seconds: float
    windows: tuple[tuple[float, float], ...]

    @property
    def pages_per_second(self) -> float:
        """The rate in the shortest window."""
        seconds, pages = min(self.windows)
        return pages / seconds


class Histories:
    """All servers' samples; may be used by several threads."""

    def __init__(self, path: str | None, now=time.time):
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._samples: dict[str, list[Sample]] = _read(path, now()) if path else {}
        self._described: dict[str, tuple[float, History | None]] = {}

    def add(self, server_id: str, sample: Sample) -> None:
        """Take a sample; those older than an hour go."""
        with self._lock:
            kept = [s for s in self._samples.get(server_id, ())
                    if sample.at_seconds - SPAN_SECONDS < s.at_seconds < sample.at_seconds]
            self._samples[server_id] = [*kept, sample][-MOST_SAMPLES:]

    def keep_only(self, server_ids) -> None:
        """Forget the servers that are not among these: they have left this host."""
        wanted = set(server_ids)
        with self._lock:
            self._samples = {i: found for i, found in self._samples.items() if i in wanted}
            self._described = {i: found for i, found in self._described.items() if i in wanted}

    def samples(self, server_id: str) -> list[Sample]:
        """Return a server's samples of the last hour, oldest first."""
        since = self._now() - SPAN_SECONDS
        with self._lock:
            return [s for s in self._samples.get(server_id, ()) if s.at_seconds > since]

    def of(self, server_id: str, memory_pages: int) -> History | None:
        """Return a server's history as series and as model; None without a sample."""
        samples = self.samples(server_id)
        if not samples:
            return None
        latest = samples[-1].at_seconds
        known = self._described.get(server_id)
        if known is None or known[0] != latest:
            known = self._described[server_id] = latest, describe(samples, memory_pages)
        return known[1]

    def save(self) -> None:
        """Write the file anew, as a whole; a failure is a warning, for it costs no more."""
        if not self._path:
            return
        with self._lock:
            samples = {i: list(found) for i, found in self._samples.items()}
        try:
            _write(self._path, samples)
        except OSError as error:
            LOG.warning("the history of dirty rates could not be kept in %s: %s", self._path,
                        error)


def describe(samples: list[Sample], memory_pages: int) -> History:
    """Return series, model and period of samples, oldest first."""
    window = sum(min(s.windows)[0] for s in samples) / len(samples)
    at = tuple(round(s.at_seconds, 3) for s in samples)
    rates = tuple(round(s.pages_per_second, 3) for s in samples)
    return History(at, rates, window, "content-diff", model(samples, memory_pages),
                   periodicity.find(at, rates, window))


def model(samples: list[Sample], memory_pages: int) -> DirtyModel | None:
    """Fit one model to all samples: the mean of the windows of each length counts."""
    lengths: list[list[tuple[float, float]]] = []
    for window in sorted(window for sample in samples for window in sample.windows):
        if lengths and window[0] < _SAME_LENGTH * lengths[-1][0][0]:
            lengths[-1].append(window)
        else:
            lengths.append([window])
    means = [DirtyWindow(_mean(seconds for seconds, _ in windows),
                         _mean(pages for _, pages in windows), "content-diff")
             for windows in lengths]
    return dirty_model.fit(means, memory_pages) if len(means) >= 2 else None


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _read(path: str, now: float) -> dict[str, list[Sample]]:
    """Return what the file holds of the last hour; nothing where it can't be read."""
    try:
        if os.path.getsize(path) > 2 * MOST_FILE_BYTES:
            raise ValueError("it is larger than this agent writes")
        with open(path, encoding="utf-8") as opened:
            data = json.load(opened)
        if data["version"] != _VERSION:
            raise ValueError(f"it has version {data['version']}, not {_VERSION}")
        return {str(server): _samples(found, now) for server, found in data["servers"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        LOG.warning("the history of dirty rates in %s can't be used (%s: %s); it begins anew",
                    path, type(error).__name__, error)
        return {}


def _samples(found, now: float) -> list[Sample]:
    samples = [Sample(float(at), tuple((float(seconds), float(pages))
                                       for seconds, pages in windows))
               for at, windows in found]
    for sample in samples:
        numbers = [sample.at_seconds, *(n for window in sample.windows for n in window)]
        if not sample.windows or not all(math.isfinite(n) and n >= 0 for n in numbers) \
                or min(sample.windows)[0] <= 0:
            raise ValueError(f"{sample} is no sample")
    # a clock that was set back would make the future look like the last hour
    return sorted((s for s in samples if now - SPAN_SECONDS < s.at_seconds <= now),
                  key=lambda sample: sample.at_seconds)[-MOST_SAMPLES:]


def _write(path: str, samples: dict[str, list[Sample]]) -> None:
    most = MOST_SAMPLES
    while True:
        text = json.dumps({"version": _VERSION, "servers": {
            server: [[round(s.at_seconds, 3), [[round(n, 3) for n in w] for w in s.windows]]
                     for s in found[-most:]] for server, found in samples.items()}},
            separators=(",", ":"))
        if len(text) <= MOST_FILE_BYTES or most == 1:
            break
        most //= 2
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".history-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

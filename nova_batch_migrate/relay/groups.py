"""The open groups of one relay: what the agent asks for, and what memory they have left.

Made by service.py, which leads connections to them. Without one of them nothing leaves or reaches
this host through the relay.
"""

import collections
import threading
import time

from oslo_log import log

from nova_batch_migrate import exception, version
from nova_batch_migrate.relay import (
    base_images,
    channel,
    destination,
    dictionary,
    redirect,
    source,
    switchover,
    throughput,
    values,
)

LOG = log.getLogger(__name__)

#: For which the dictionaries' memory waits for the next group.
_KEPT_SECONDS = 60


class OpenGroups:
    """Opens, closes and counts the groups of a host; control.py answers an agent with it."""

    def __init__(self, conf, rules: redirect.Redirect, contexts: channel.Contexts):
        options = conf.relay
        self._host, self._options = conf.host, options
        self._redirect, self._contexts = rules, contexts
        self._lock = threading.Lock()
        self._groups: dict[str, source.SourceGroup | destination.DestinationGroup] = {}
        self._gangs: dict[frozenset[str], switchover.Gang] = {}
        self._images = base_images.BaseImages(options.base_images_path,
                                              options.base_images_mib << 20)
        self._store = dictionary.Store(options.dictionary_mib << 20)
        #: Gives the store's memory back a while after the last group.
        self._release: threading.Timer | None = None
        self._settings = source.Settings(
            images=self._images, store=self._store,
            mark=options.mark, zstd_level=options.zstd_level,
            zstd_window_log=options.zstd_window_log, link_seconds=options.link_seconds,
            hold_seconds=options.hold_seconds, pause_seconds=options.pause_seconds,
            policy=switchover.Policy(options.switchover_policy))
        #: While a group is counted with the closed ones instead of the open ones.
        self._counting = threading.Lock()
        #: Counters of the groups that are closed.
        self._closed_total: collections.Counter[str] = collections.Counter()
        self._speed = throughput.Repeated(
            lambda: throughput.measure(contexts.server(), contexts.client(), self._host))
        #: Bytes spliced past the logs, since the start.
        self._spliced_bytes = 0

    def close(self) -> None:
        """Close every group."""
        for group_id in list(self._groups):
            self.close_group(group_id)
        if self._release is not None:
            self._release.cancel()

    # ---- what the agent asks (control.Server calls these) ---------------------------------

    def hello(self) -> dict:
        """Return what an agent tells its conductor of this relay."""
        with self._lock:
            left = self._memory_left()
            groups = sorted(self._groups)
        return {"version": version.version_string(), "name": self._host,
                "port": self._options.port, "groups": len(groups),
                "group_ids": groups, "speed": self._speed.best(),
                "dictionary_bytes": self._options.dictionary_mib << 20,
                "dictionary_free_bytes": left,
                "switchover_policy": self._options.switchover_policy}

    def open_group(self, given: dict) -> dict:
        """Open a group; harmless to repeat. At its source this reaches the destination first."""
        group = values.Group.from_dict(given)
        if self._host != (group.source if group.role == values.SOURCE else group.destination):
            raise exception.RelayError(reason=f"group {group.id} is none of {self._host}.")
        with self._lock:
            known = self._groups.get(group.id)
            if known is not None:
                if known.group != group:
                    raise exception.RelayError(reason=f"group {group.id} is open already.")
                return {}
            if group.dictionary_bytes > self._memory_left():
                raise exception.RelayError(
                    reason=f"{group.dictionary_bytes >> 20} MiB for the dictionary of group "
                    f"{group.id}, and {self._memory_left() >> 20} MiB are left. Wait for other "
                    "groups to end, or raise [relay] dictionary_mib.")
            if group.role == values.SOURCE:
                made = source.SourceGroup(group, self._settings, self._contexts, self._gangs)
            else:
                made = destination.DestinationGroup(group, self._options.mark, self._images,
                                                    store=self._store)
            self._groups[group.id] = made
        # beside Nova's own preparations: the first page comes seconds later
        threading.Thread(target=made.prepare, daemon=True).start()
        if group.role == values.SOURCE:
            try:
                made.check()
                self._redirect.add(made.addresses,
                                   self._options.redirect_port + (
                                       2 if group.synchronized else group.link_is_slow))
            except exception.RelayError:
                with self._lock:
                    self._groups.pop(group.id, None)
                made.close()
                raise
            threading.Thread(target=made.begin, daemon=True).start()
        LOG.info("group %s is open: %d servers from %s to %s", group.id, len(group.members),
                 group.source, group.destination)
        return {}

    def close_group(self, group_id: str) -> dict:
        """Close a group and return its statistics; harmless to repeat."""
        figures = {}
        with self._counting:
            with self._lock:
                made = self._groups.pop(group_id, None)
            if isinstance(made, source.SourceGroup):
                figures = made.figures()
                self._closed_total.update(_bytes_of(figures))
        if made is None:
            return {}
        if isinstance(made, source.SourceGroup):
            self._redirect.remove(made.addresses)
            with self._lock:
                for members in made.group.synchronized:
                    self._gangs.pop(members, None)
        made.close()
        self._release_later()
        LOG.info("group %s is closed", group_id)
        return figures

    def _release_later(self) -> None:
        """Give the dictionaries' memory back unless another group opens soon, as in a drain.

        The relay's own speed is then looked at once more.
        """
        def release() -> None:
            with self._lock:
                idle = not self._groups
                if idle:
                    self._store.release()
            if idle:
                # nothing of ours is beside it now
                self._speed.again()
        with self._lock:
            if self._release is not None:
                self._release.cancel()
            self._release = threading.Timer(_KEPT_SECONDS, release)
            self._release.daemon = True
            self._release.start()

    def limit(self, group_id: str, bytes_per_second: float | None) -> dict:
        """Change the cap on the wire bytes of a group."""
        self._leaving(group_id).limit(bytes_per_second)
        return {}

    def leave_group(self, group_id: str, server_id: str) -> dict:
        """Let the further connections of a server go the plain way.

        Of one that is to move with others: let none of them pass, and count it out of its set.
        """
        self._leaving(group_id).exclude(server_id)
        return {}

    def _leaving(self, group_id: str) -> source.SourceGroup:
        with self._lock:
            made = self._groups.get(group_id)
        if not isinstance(made, source.SourceGroup):
            raise exception.RelayError(reason=f"no group {group_id} leaves this host.")
        return made

    def statistics(self) -> dict:
        """Return the counters of each open group that leaves this host, and since the start."""
        with self._counting:
            with self._lock:
                groups = [made for made in self._groups.values()
                          if isinstance(made, source.SourceGroup)]
            told = [made.figures() for made in groups]
            total = collections.Counter(self._closed_total)
        for figures in told:
            total.update(_bytes_of(figures))
        return {"groups": told, "total": dict(total),
                "spliced_bytes": self._spliced_bytes,
                "cpu_seconds": time.process_time()}

    def _memory_left(self) -> int:
        return (self._options.dictionary_mib << 20) - sum(
            made.group.dictionary_bytes for made in self._groups.values())

    # ---- what connections need --------------------------------------------------------------

    def leaving_to(self, address: str) -> list[source.SourceGroup]:
        """Return the groups that leave this host for an address."""
        with self._lock:
            return [made for made in self._groups.values()
                    if isinstance(made, source.SourceGroup) and address in made.addresses]

    def arriving(self, group_id: str) -> destination.DestinationGroup | None:
        """Return a group that comes to this host; None where it is not open (any more)."""
        with self._lock:
            made = self._groups.get(group_id)
        return made if isinstance(made, destination.DestinationGroup) else None

    def count_spliced(self, size_bytes: int) -> None:
        """Count what went past the logs."""
        with self._lock:
            self._spliced_bytes += size_bytes


def _bytes_of(figures: dict) -> dict[str, int]:
    return {name: value for name, value in figures.items()
            if name.endswith("_bytes") and not name.startswith("dictionary")}

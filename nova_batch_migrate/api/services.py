"""What all requests of one process share: configuration, policy, the way to the conductors.

Made by the filter's factory, once per configuration, before the WSGI server forks: so everything
with a connection or a thread is made by the first request that needs it.
"""

import threading
import time

import oslo_messaging as messaging
from oslo_log import log

from nova_batch_migrate import conf as own_conf
from nova_batch_migrate import context, exception, policies
from nova_batch_migrate.conductor import rpcapi
from nova_batch_migrate.policies import enforcer

LOG = log.getLogger(__name__)


class ConductorLink:
    """The RPC client of one process, handed out only once the message bus has been reached.

    oslo.messaging's first call waits for the broker without an end, and then still sends what
    its caller gave up long ago. So a thread knocks with a call that changes nothing; requests wait
    for it no longer than ``[api] conductor_timeout_seconds`` and send nothing before.
    """

    def __init__(self, conf):
        self._conf = conf
        self._lock = threading.Lock()
        self._client = None
        self._reached = threading.Event()

    def client(self) -> rpcapi.ConductorAPI:
        """Return the client; ConductorUnavailable when the bus can't be reached in time."""
        timeout_seconds = self._conf.api.conductor_timeout_seconds
        began = time.monotonic()
        with self._lock:
            if self._client is None:
                self._client = rpcapi.ConductorAPI(self._conf)
                threading.Thread(target=self._knock, name="knock", daemon=True).start()
        self._reached.wait(timeout_seconds)
        # a knock that took most of the caller's time leaves none for the call itself
        if not self._reached.is_set() or time.monotonic() - began > timeout_seconds / 2:
            raise exception.ConductorUnavailable(seconds=timeout_seconds)
        return self._client

    def _knock(self) -> None:
        while not self._reached.is_set():
            try:
                self._client.list(context.service_context(), {}, 1, None)
            except messaging.MessageDeliveryFailure as error:
                LOG.warning("the message bus is out of reach, trying again: %s", error)
                continue
            except Exception as error:
                LOG.info("the message bus is reached, its first answer was: %s", error)
            self._reached.set()


class Services:
    """``conf`` is parsed; nothing is connected yet."""

    def __init__(self, conf):
        self.conf = conf
        self.enforcer = enforcer.Enforcer(conf, policies.list_rules())
        self.conductor_link = ConductorLink(conf)


_of_process: dict[tuple[str, ...] | None, Services] = {}


def of_process(config_files: tuple[str, ...] | None) -> Services:
    """Return the one Services of this process, over ``config_files`` (None: the default file).

    nova-api calls a filter's factory once per pipeline; all pipelines share one configuration and
    one connection. Raises ValueError when they name different files.
    """
    if not _of_process:
        _of_process[config_files] = Services(_parsed(config_files))
    if config_files not in _of_process:
        raise ValueError(
            f"One paste filter of batch migrations names the config_file {config_files}, another "
            f"one {list(_of_process)[0]}. Name the same files in all of them.")
    return _of_process[config_files]


def _parsed(config_files: tuple[str, ...] | None):
    conf = own_conf.CONF
    own_conf.parse(conf, [], list(config_files) if config_files is not None else None)
    if not conf.config_file:
        LOG.warning("%s does not exist and the paste filter names no config_file: batch "
                    "migrations run on default options, such as a message bus on localhost",
                    own_conf.DEFAULT_FILE)
    return conf

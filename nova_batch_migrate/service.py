"""Runs one service in one process: start, wait for a signal, stop in order.

Called by the console scripts; knows nothing of what the service does.
"""

import signal
import threading
from typing import Protocol

from oslo_log import log
from oslo_reports import guru_meditation_report
from oslo_reports import opts as report_opts

from nova_batch_migrate import conf, version

LOG = log.getLogger(__name__)


class Service(Protocol):
    """What a console script hands to :func:`run`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def prepare(argv: list[str], name: str):
    """Parse the configuration, set up logging and the guru meditation report (SIGUSR2)."""
    conf.parse(conf.CONF, argv)
    log.setup(conf.CONF, name)
    report_opts.set_defaults(conf.CONF)
    guru_meditation_report.TextGuruMeditation.setup_autorun(version, conf=conf.CONF)
    conf.CONF.log_opt_values(LOG, log.DEBUG)
    return conf.CONF


def run(service: Service) -> None:
    """Start ``service``, stop it at SIGTERM or SIGINT; SIGHUP rereads the mutable options."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, lambda *_: conf.CONF.mutate_config_files())
    service.start()
    LOG.info("started, version %s", version.version_string())
    ended.wait()
    LOG.info("stopping")
    service.stop()

"""This project's own configuration: never oslo's global one, because nova-api has that for itself.

Services call :func:`parse`; library code reads ``CONF``. One module of this package per group.
"""

import importlib
import os
import pkgutil

from oslo_config import cfg
from oslo_log import log

from nova_batch_migrate import version

DEFAULT_FILE = "/etc/nova-batch-migrate/nova-batch-migrate.conf"
_NOT_GROUPS = ("opts",)


def group_modules():
    """Yield every module of this package that registers options, in the order of their names."""
    for info in pkgutil.iter_modules(__path__):
        if info.name not in _NOT_GROUPS:
            yield importlib.import_module(f"{__name__}.{info.name}")


def new() -> cfg.ConfigOpts:
    """Return a fresh ConfigOpts with all options of this project and of oslo.log registered."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    for module in group_modules():
        module.register_opts(conf)
    return conf


def parse(conf: cfg.ConfigOpts, argv: list[str], config_files: list[str] | None = None) -> None:
    """Parse command line and files; without ``config_files`` the default file, where it exists."""
    if config_files is None:
        config_files = [DEFAULT_FILE] if os.path.exists(DEFAULT_FILE) else []
    conf(argv, project="nova-batch-migrate", version=version.version_string(),
         default_config_files=config_files)


CONF = new()

"""The options of Nova that decide how a live migration runs, read from Nova's own files.

Used by preflight.py and bandwidth.py. Imports nothing of Nova and never asks a running service:
what cannot be read is "unknown".
"""

import os

from oslo_config import cfg
from oslo_log import log

LOG = log.getLogger(__name__)

UNKNOWN = "unknown"

# Names and defaults are those of Nova 34.
_DEFAULT_OPTS = [
    cfg.IntOpt("max_concurrent_live_migrations", default=1),
    cfg.StrOpt("my_ip"),
]
_LIBVIRT_OPTS = [
    cfg.IntOpt("live_migration_downtime", default=500, min=100),
    cfg.IntOpt("live_migration_downtime_steps", default=10, min=3),
    cfg.IntOpt("live_migration_downtime_delay", default=75, min=3),
    cfg.IntOpt("live_migration_completion_timeout", default=800),
    cfg.StrOpt("live_migration_timeout_action", default="abort",
               choices=["abort", "force_complete"]),
    cfg.BoolOpt("live_migration_permit_post_copy", default=False),
    cfg.BoolOpt("live_migration_permit_auto_converge", default=False),
    cfg.BoolOpt("live_migration_with_native_tls", default=False),
    cfg.IntOpt("live_migration_bandwidth", default=0),
    cfg.IntOpt("live_migration_parallel_connections", default=1),
    cfg.StrOpt("live_migration_inbound_addr"),
]


def read(config_files: list[str]) -> dict:
    """Return {option: value}; "unknown" for all without a readable file, or for a bad value.

    An option that the files leave out has Nova's default; null means set by nobody.
    """
    present = [path for path in config_files if os.path.exists(path)]
    names = [opt.name for opt in _DEFAULT_OPTS + _LIBVIRT_OPTS]
    conf = cfg.ConfigOpts()
    conf.register_opts(_DEFAULT_OPTS)
    conf.register_opts(_LIBVIRT_OPTS, group="libvirt")
    try:
        conf([], default_config_files=present, default_config_dirs=[], use_env=False)
    except (OSError, cfg.Error) as error:
        LOG.warning("Nova's options are unknown: %s", error)
        return dict.fromkeys(names, UNKNOWN)
    if not present:
        return dict.fromkeys(names, UNKNOWN)
    return {
        **{opt.name: _value(conf, opt.name) for opt in _DEFAULT_OPTS},
        **{opt.name: _value(conf.libvirt, opt.name) for opt in _LIBVIRT_OPTS},
    }


def _value(group, name: str):
    try:
        return getattr(group, name)
    except (ValueError, cfg.Error) as error:
        LOG.warning("Nova's option %s is unknown: %s", name, error)
        return UNKNOWN

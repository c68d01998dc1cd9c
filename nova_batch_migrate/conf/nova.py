"""How Nova's API is reached and as whom: keystoneauth's options of the service user.

The user needs what an administrator may do in Nova: live-migrate to a named host, abort, reset a
state, disable a compute service, list every project's servers.
"""

from keystoneauth1 import loading as ks_loading
from oslo_config import cfg

GROUP = "nova"
REQUEST_TIMEOUT_SECONDS = 60


def service_user_opts(service: str) -> list:
    """Return keystoneauth's session and adapter options with this project's defaults."""
    opts = [
        *ks_loading.get_session_conf_options(),
        *ks_loading.get_adapter_conf_options(include_deprecated=False),
    ]
    cfg.set_defaults(
        opts,
        timeout=REQUEST_TIMEOUT_SECONDS,
        service_type=service,
        valid_interfaces=["internal", "public"],
    )
    return opts


def sample_opts(service: str) -> list:
    """Return the options for the sample file: also those of the usual way to log in."""
    return [
        *ks_loading.get_auth_common_conf_options(),
        *ks_loading.get_auth_plugin_conf_options("v3password"),
        *service_user_opts(service),
    ]


def register_service_user(conf, group: str, service: str) -> None:
    """Register what keystoneauth needs to log in and to find ``service`` in the catalogue."""
    ks_loading.register_auth_conf_options(conf, group)
    conf.register_opts(service_user_opts(service), group=group)


def register_opts(conf):
    register_service_user(conf, GROUP, "compute")


def list_opts():
    return {GROUP: sample_opts("compute")}

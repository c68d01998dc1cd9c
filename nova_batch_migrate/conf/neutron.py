"""How Neutron's API is reached: by default with the credentials of [nova]."""

from nova_batch_migrate.conf import nova

GROUP = "neutron"


def register_opts(conf):
    nova.register_service_user(conf, GROUP, "network")
    conf.set_default("auth_section", nova.GROUP, group=GROUP)


def list_opts():
    return {GROUP: nova.sample_opts("network")}

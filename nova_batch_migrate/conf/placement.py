"""How Placement's API is reached and as whom; ``auth_section = nova`` takes the user of [nova]."""

from nova_batch_migrate.conf import nova

GROUP = "placement"


def register_opts(conf):
    nova.register_service_user(conf, GROUP, "placement")


def list_opts():
    return {GROUP: nova.sample_opts("placement")}

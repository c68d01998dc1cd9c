"""What oslo-config-generator asks for: all options of this project by group."""

from nova_batch_migrate import conf


def list_opts():
    """Return ``[(group, options), ...]`` of every module in ``conf``."""
    groups: dict[str, list] = {}
    for module in conf.group_modules():
        for group, options in module.list_opts().items():
            groups.setdefault(group, []).extend(options)
    return list(groups.items())

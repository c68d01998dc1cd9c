"""The version of this package as pbr installed it; services and reports show it."""

import pbr.version

version_info = pbr.version.VersionInfo("nova-batch-migrate")


def version_string() -> str:
    """Return the release version, for example ``0.1.0``."""
    return version_info.release_string()

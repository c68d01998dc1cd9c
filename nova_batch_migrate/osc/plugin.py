"""What python-openstackclient needs to load this plug-in's commands.

Loaded by the entry point openstack.cli.extension. It opens no connection of its own: the commands
go through the SDK's compute adapter, with the operator's credentials.
"""

import argparse
from typing import Any

from osc_lib import utils

DEFAULT_API_VERSION = "1"
API_VERSION_OPTION = "os_batch_migrate_api_version"
API_NAME = "batch_migrate"
API_VERSIONS = ("1", "1.0")


def make_client(instance: Any) -> Any:
    """Return the compute adapter of the client manager's SDK connection."""
    return instance.sdk_connection.compute


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add this plug-in's global option."""
    parser.add_argument(
        "--os-batch-migrate-api-version",
        metavar="<batch-migrate-api-version>",
        default=utils.env("OS_BATCH_MIGRATE_API_VERSION"),
        help=f"Batch migration API version, default={DEFAULT_API_VERSION} "
        "(Env: OS_BATCH_MIGRATE_API_VERSION)",
    )
    return parser

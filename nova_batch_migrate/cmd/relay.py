"""nova-batch-relay: carries the migration streams of open groups, identical memory once."""

import sys

from nova_batch_migrate import service
from nova_batch_migrate.relay import service as relay


def main(argv: list[str] | None = None) -> None:
    """Run the relay of this host until it is told to stop."""
    argv = sys.argv[1:] if argv is None else argv
    service.run(relay.Relay(service.prepare(argv, "nova-batch-relay")))

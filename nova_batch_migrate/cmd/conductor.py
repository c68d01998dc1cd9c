"""nova-batch-conductor: surveys, measures, plans, executes and reports batch migrations."""

import sys

from nova_batch_migrate import service
from nova_batch_migrate.conductor import service as conductor


def main(argv: list[str] | None = None) -> None:
    """Run a conductor until it is told to stop."""
    conf = service.prepare(sys.argv[1:] if argv is None else argv, "nova-batch-conductor")
    service.run(conductor.ConductorService(conf))

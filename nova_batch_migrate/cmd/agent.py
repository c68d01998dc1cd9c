"""nova-batch-agent: measures the servers of its own compute host and answers the conductors."""

import sys

from oslo_config import cfg

from nova_batch_migrate import service
from nova_batch_migrate.agent import manager


def main(argv: list[str] | None = None) -> None:
    """Run the agent of this host until it is told to stop."""
    argv = sys.argv[1:] if argv is None else argv
    conf = service.prepare(argv, "nova-batch-agent")
    # oslo.privsep reads its helper command from oslo's global configuration
    cfg.CONF([], project="nova-batch-migrate", default_config_files=list(conf.config_file))
    service.run(manager.AgentService(conf))

"""nova-batch-status: `upgrade check` tells before a start or an upgrade what is not ready yet.

Reads only. What can't be reached from here is a warning; what is set wrongly is a failure.
"""

import os
import sys

import oslo_messaging as messaging
from oslo_db import exception as db_exc
from oslo_upgradecheck import common_checks, upgradecheck
from sqlalchemy import exc as sa_exc

from nova_batch_migrate import conf, exception
from nova_batch_migrate.clients import nova, placement
from nova_batch_migrate.db import migration

Code = upgradecheck.Code
Result = upgradecheck.Result


class Checks(upgradecheck.UpgradeCommands):
    """The checks, in the order in which an operator sets things up."""

    def __init__(self, settings):
        super().__init__()
        self._conf = settings

    def check_database(self) -> Result:
        """The database answers and has the tables that this version needs."""
        self._conf.set_override("max_retries", 1, "database")
        self._conf.set_override("retry_interval", 1, "database")
        try:
            at = migration.version()
        except (db_exc.DBError, sa_exc.SQLAlchemyError, OSError) as error:
            return Result(Code.FAILURE, f"The database can't be used: {error}. Check [database] "
                                        "connection.")
        if at != migration.head():
            return Result(Code.FAILURE,
                          f"The tables are at revision {at or 'none'}, {migration.head()} is "
                          "needed. Run: nova-batch-manage db sync")
        return Result(Code.SUCCESS)

    def check_policy_file(self) -> Result:
        """The policy file is YAML."""
        return common_checks.check_policy_json(self, self._conf)

    def check_transport(self) -> Result:
        """Both buses are set, each with a URL that oslo.messaging understands."""
        agents_url = self._conf.agent_transport.transport_url
        try:
            # no URL: that of [DEFAULT]
            own = messaging.TransportURL.parse(self._conf)
            agents = messaging.TransportURL.parse(self._conf, agents_url)
        except messaging.InvalidTransportURL as error:
            return Result(Code.FAILURE, f"A transport_url can't be understood: {error}")
        if own.transport == "rabbit" and not own.hosts:
            return Result(Code.FAILURE,
                          "[DEFAULT] transport_url is not set; API and conductor meet there. Set "
                          "it to a vhost of its own: rabbit://user:password@host:5672/nova_batch")
        if str(agents) == str(own):
            return Result(Code.WARNING,
                          "Conductors and agents share the bus of the API. Give them a vhost of "
                          "their own in [agent_transport] transport_url, so that a compute host "
                          "can't listen to the API.")
        return Result(Code.SUCCESS)

    def check_nova(self) -> Result:
        """The service user may do in Nova what an administrator may, and Nova is new enough."""
        client = nova.NovaClient(self._conf)
        return _try_service(client, client.compute_services)

    def check_placement(self) -> Result:
        """The service user may read Placement."""
        client = placement.PlacementClient(self._conf)
        return _try_service(client, lambda: client.free_capacity(()))

    _upgrade_checks = (
        ("Database", check_database),
        ("Policy file", check_policy_file),
        ("Message bus", check_transport),
        ("Service user at Nova", check_nova),
        ("Service user at Placement", check_placement),
    )


def _try_service(client, read) -> Result:
    try:
        client.log_in()
        read()
    except exception.NovaPermanentError as error:
        return Result(Code.FAILURE, str(error))
    except exception.NovaTransientError as error:
        return Result(Code.WARNING, f"Could not be checked from here: {error}")
    return Result(Code.SUCCESS)


def main(argv: list[str] | None = None) -> int:
    """Run `upgrade check`; return 0 for success, 1 for warnings, 2 for failures, 255 for a bug."""
    files = [conf.DEFAULT_FILE] if os.path.exists(conf.DEFAULT_FILE) else []
    return int(upgradecheck.main(
        conf.CONF, project="nova-batch-migrate", upgrade_command=Checks(conf.CONF),
        argv=sys.argv[1:] if argv is None else argv, default_config_files=files))

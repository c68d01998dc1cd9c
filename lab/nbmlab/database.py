"""The databases of the cloud: MariaDB itself, the schemas, and Nova's cells.

Called by services. Each schema is made once (stamps in the state directory).
"""
from nbmlab import daemon, layout, project, shell
from nbmlab.daemon import Daemon
from nbmlab.rendering import KEYSTONE_URL

MANAGE_LOG = "manage.log"


def start() -> None:
    """Start MariaDB, with an empty data directory at the first time."""
    data = layout.VAR / "mysql"
    if not (data / "ibdata1").exists():
        shell.run("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db",
                  "--auth-root-authentication-method=normal", f"--datadir={data}",
                  log=layout.LOG / "mysql-install.log")
    daemon.start(Daemon("mysql", (
        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
        f"--socket={layout.MYSQL_SOCKET}", "--skip-networking", "--skip-grant-tables",
        # a lab may lose the last second; every commit on disk would cost the first start a minute
        "--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite",
        "--innodb-buffer-pool-size=128M", "--max-connections=500",
        f"--pid-file={layout.RUN / 'mysqld.pid'}")))
    shell.wait_for("MariaDB", 180, lambda: shell.succeeds(
        "mariadb", "-S", layout.MYSQL_SOCKET, "-e", "select 1"), every_seconds=0.1)


def _create(*schemas: str) -> None:
    statements = ";".join(f"create database if not exists {schema} character set utf8mb3"
                          for schema in schemas)
    shell.run("mariadb", "-S", layout.MYSQL_SOCKET, "-e", statements)


def _once(name: str, *commands: tuple[str, ...]) -> None:
    done = layout.VAR / f"{name}.schema"
    if done.exists():
        return
    shell.say(f"database of {name}")
    for command in commands:
        shell.run(*command, log=layout.LOG / MANAGE_LOG)
    done.touch()


def keystone() -> None:
    manage = ("keystone-manage", "--config-file", str(layout.ETC / "keystone.conf"))
    _create("keystone")
    _once("keystone", (*manage, "db_sync"), (
        *manage, "bootstrap", "--bootstrap-password", "admin",
        *(word for kind in ("admin", "public", "internal")
          for word in (f"--bootstrap-{kind}-url", f"{KEYSTONE_URL}/v3")),
        "--bootstrap-region-id", layout.REGION))


def placement() -> None:
    _create("placement")
    _once("placement", ("placement-manage", "--config-file", str(layout.ETC / "placement.conf"),
                        "db", "sync"))


def glance() -> None:
    _create("glance")
    _once("glance", ("glance-manage", "--config-file", str(layout.ETC / "glance-api.conf"),
                     "db_sync"))


def neutron() -> None:
    _create("neutron")
    _once("neutron", ("neutron-db-manage", "--config-file", str(layout.ETC / "neutron.conf"),
                      "upgrade", "head"))


def nova() -> None:
    """Make Nova's three schemas and map its cells."""
    manage = ("nova-manage", "--config-file", str(layout.ETC / "nova.conf"))
    _create("nova_api", "nova", "nova_cell0")
    _once("nova", (*manage, "api_db", "sync"), (*manage, "cell_v2", "map_cell0"),
          (*manage, "db", "sync"), (*manage, "cell_v2", "create_cell", "--name", "cell1"))


def nova_batch() -> None:
    """Bring our own schema up to date, once the project offers the command for it."""
    _create("nova_batch")
    if project.importable("cmd/manage.py"):
        shell.run(layout.BIN / "nova-batch-manage", "--config-file", project.CONDUCTOR_CONF,
                  "db", "sync", log=layout.LOG / MANAGE_LOG)

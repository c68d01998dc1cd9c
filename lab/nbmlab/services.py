"""Brings the whole cloud up, and restarts parts of it: which service, in which order, ready when.

Called by lab/up and lab/restart. Steps run side by side; each waits for a condition, never for a
time.
"""
from nbmlab import (
    cgroups,
    config,
    daemon,
    database,
    host,
    layout,
    network,
    project,
    provision,
    shell,
    teardown,
)
from nbmlab.daemon import Daemon
from nbmlab.layout import Host, Options
from nbmlab.steps import Step, run_all

ETC = str(layout.ETC)


def up(options: Options) -> None:
    """Bring everything up that is not up; safe to repeat and after any kind of death."""
    config.render_all(options)
    for gone in layout.ALL_HOSTS[options.hosts:]:
        for name in (f"batch-relay-{gone.name}", f"batch-agent-{gone.name}",
                     f"compute-{gone.name}"):
            daemon.stop(name)
        host.stop(gone)
        network.unplug(gone)
    network.build(options.host_list, options.ipv6)
    network.cap(options.host_list, options.link_mib_per_second)
    run_all(_steps(options))
    provision.forget_other_computes(options.host_list)
    options.save()


def revive(options: Options) -> None:
    """Start again what has died of the project's own daemons; return when relays answer."""
    _batch_conductor()
    for each in options.host_list:
        for agent in project.agent(each, host.inside(each)):
            daemon.start(agent)
        _relay(each, options.relays)
    for each in options.host_list if options.relays else ():
        shell.wait_for(f"the relay of {each.name}", 120,
                       lambda each=each: shell.listens_at(project.control_socket(each)))


def _steps(options: Options) -> list[Step]:
    hosts = options.host_list
    steps = [
        Step("mysql", database.start),
        Step("rabbit", _rabbit),
        Step("instances", _instances),
        Step("keystone-db", database.keystone, ("mysql",)),
        Step("placement-db", database.placement, ("mysql",)),
        Step("glance-db", database.glance, ("mysql",)),
        Step("neutron-db", database.neutron, ("mysql",)),
        Step("nova-db", database.nova, ("mysql",)),
        Step("nova-batch-db", database.nova_batch, ("mysql",)),
        Step("keystone", lambda: _wsgi("keystone", "keystone.wsgi.api", {
            "OS_KEYSTONE_CONFIG_FILES": f"{ETC}/keystone.conf"}, ("keystone.conf",)),
             ("keystone-db",)),
        Step("placement", lambda: _wsgi("placement", "placement.wsgi.api", {
            "OS_PLACEMENT_CONFIG_DIR": ETC}, ("placement.conf",)), ("placement-db",)),
        Step("glance", lambda: _wsgi("glance", "glance.wsgi.api", {
            "OS_GLANCE_CONFIG_DIR": ETC}, ("glance-api.conf",)), ("glance-db",)),
        Step("neutron", lambda: _wsgi("neutron", "neutron.wsgi.api", {
            "OS_NEUTRON_CONFIG_DIR": ETC, "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            "PYTHONPATH": str(layout.LAB_SOURCE / "neutron")}, ("neutron.conf",)),
             ("neutron-db", "rabbit")),
        Step("nova-api", lambda: _wsgi("nova-api", "nova.wsgi.osapi_compute", {
            "OS_NOVA_CONFIG_DIR": ETC},
            ("nova.conf", "api-paste.ini", "nova-batch-migrate/nova-batch-api.conf")),
             ("nova-db",)),
        Step("conductor", lambda: _nova("conductor"), ("nova-db", "rabbit")),
        Step("scheduler", lambda: _nova("scheduler"), ("nova-db", "rabbit")),
        Step("batch-conductor", _batch_conductor, ("nova-batch-db", "rabbit")),
        Step("catalog", provision.catalog, ("keystone",)),
        Step("images", provision.images, ("catalog", "glance")),
        Step("network", provision.guest_network, ("catalog", "neutron"))]
    for each in hosts:
        steps += _host_steps(each, options)
    steps.append(Step("computes", lambda: provision.wait_for_computes(hosts), (
        "catalog", "nova-api", "placement", *(f"compute-{each.name}" for each in hosts))))
    return steps


def _host_steps(each: Host, options: Options) -> list[Step]:
    return [
        Step(f"relay-{each.name}", lambda: _relay(each, options.relays), (f"host-{each.name}",)),
        Step(f"host-{each.name}",
             lambda: host.start(each, options.migration_address(each)), ("instances",)),
        Step(f"compute-{each.name}", lambda: daemon.start(Daemon(
            f"compute-{each.name}",
            (*host.inside(each), str(layout.BIN / "nova-compute"),
             "--config-file", f"{ETC}/nova.conf",
             "--config-file", f"{ETC}/nova-{each.name}.conf"),
            reads=(layout.ETC / "nova.conf", layout.ETC / f"nova-{each.name}.conf"))),
             (f"host-{each.name}", "conductor", "catalog")),
        Step(f"agent-{each.name}", lambda: [
            daemon.start(agent) for agent in project.agent(each, host.inside(each))],
             (f"host-{each.name}", "rabbit"))]


def _rabbit() -> None:
    home = layout.VAR / "rabbit"
    (home / "home").mkdir(parents=True, exist_ok=True)
    daemon.start(Daemon("rabbit", ("/usr/lib/rabbitmq/bin/rabbitmq-server",), {
        "HOME": str(home / "home"), "RABBITMQ_NODENAME": "nbmlab@localhost",
        "RABBITMQ_CONFIG_FILE": f"{ETC}/rabbitmq.conf", "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(layout.LOG), "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"), "RABBITMQ_DIST_PORT": "25677",
        # a port mapper of its own, on loopback, that `down` can end without asking whose it is
        "ERL_EPMD_PORT": "4377", "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"},
        reads=(layout.ETC / "rabbitmq.conf", layout.ETC / "rabbitmq-definitions.json")))
    shell.wait_for("RabbitMQ", 180,
                   lambda: shell.listens(layout.CONTROLLER, layout.RABBIT_PORT))


def _instances() -> None:
    """Mount the instances directory so that both hosts see a cluster file system.

    libvirt migrates a guest with a file disk only if the mount table says that the directory is
    shared; one FUSE mount of that type, seen by both, is what it takes for true.
    """
    if daemon.record("instances") and shell.succeeds("mountpoint", "-q", layout.INSTANCES):
        return
    daemon.stop("instances")
    teardown.unmount(layout.STATE)
    for directory in (layout.INSTANCES_BACKING, layout.INSTANCES):
        directory.mkdir(parents=True, exist_ok=True)
    daemon.start(Daemon("instances", (
        "bindfs", "-f", "--multithreaded", "-o", "subtype=glusterfs", str(layout.INSTANCES_BACKING),
        str(layout.INSTANCES)), machine=cgroups.STORAGE))
    shell.wait_for("the FUSE mount", 60,
                   lambda: shell.succeeds("mountpoint", "-q", layout.INSTANCES))


def _wsgi(name: str, module: str, environment: dict[str, str], reads: tuple[str, ...]) -> None:
    """Run an API under uwsgi and return when it answers.

    uwsgi, since Nova's and Neutron's applications read sys.argv.
    """
    port = layout.PORTS[name]
    daemon.start(Daemon(name, (
        str(layout.BIN / "uwsgi"), "--http-socket", f"{layout.CONTROLLER}:{port}",
        "--home", str(layout.VENV), "--module", f"{module}:application", "--master",
        "--processes", "1", "--threads", "8", "--enable-threads", "--lazy-apps",
        "--die-on-term", "--need-app", "--buffer-size", "65535", "--http-chunked-input",
        "--add-header", "Connection: close", "--disable-logging"),
        environment, tuple(layout.ETC / path for path in reads)))
    shell.wait_for(name, 180, lambda: provision.answers(name))


def _nova(name: str) -> None:
    daemon.start(Daemon(name, (str(layout.BIN / f"nova-{name}"),
                               "--config-file", f"{ETC}/nova.conf"),
                        reads=(layout.ETC / "nova.conf",)))


def _relay(each: Host, wanted: bool) -> None:
    for relay in project.relay(each, host.inside(each)):
        if wanted:
            daemon.start(relay)
        else:
            daemon.stop(relay.name)


def _batch_conductor() -> None:
    for each in project.conductor():
        daemon.start(each)

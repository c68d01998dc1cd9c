"""The project's own services in the lab: their configuration, daemons, database and paste filter.

Called by config and services. What the checkout does not have is left out.
"""
import configparser
import io
import pathlib

from nbmlab import certificates, layout
from nbmlab.daemon import Daemon
from nbmlab.layout import Host, Options
from nbmlab.rendering import rabbit_url, template, write

ETC = layout.ETC / "nova-batch-migrate"
CONDUCTOR_CONF = ETC / "nova-batch-migrate.conf"
API_CONF = ETC / "nova-batch-api.conf"
POLICY = ETC / "policy.yaml"


def importable(module: str) -> bool:
    """Tell whether the checkout has the module behind a console script."""
    return (layout.CHECKOUT / "nova_batch_migrate" / module).exists()


def agent_conf(host: Host) -> pathlib.Path:
    return ETC / f"nova-batch-agent-{host.name}.conf"


def relay_conf(host: Host) -> pathlib.Path:
    return ETC / f"nova-batch-relay-{host.name}.conf"


def control_socket(host: Host) -> pathlib.Path:
    return layout.VAR / host.name / "relay.sock"


def render(common: dict[str, object], options: Options) -> None:
    """Write the configuration of API filter, conductor, and one agent and relay a host."""
    write(CONDUCTOR_CONF, template("nova-batch-conductor.conf", common | {
        "transport": rabbit_url("batch-conductor", "batch"),
        "agent_transport": rabbit_url("batch-conductor", "batch-agents")}))
    write(API_CONF, template("nova-batch-api.conf", common | {
        "transport": rabbit_url("batch-api", "batch"), "policy": POLICY}))
    write(POLICY, "# the defaults of the code\n{}\n")
    for host in layout.ALL_HOSTS:
        write(agent_conf(host), template("nova-batch-agent.conf", common | {
            "transport": rabbit_url(f"agent-{host.name}", "batch-agents"), "name": host.name,
            "relay_socket": control_socket(host)}))
        own, key = certificates.certificate(layout.VAR / "certificates", host.name)
        write(relay_conf(host), template("nova-batch-relay.conf", common | {
            "name": host.name, "address": options.migration_address(host),
            "relay_socket": control_socket(host),
            "ca": certificates.authority(own.parent), "certificate": own, "key": key}))


def conductor() -> list[Daemon]:
    """Return the conductor's daemon, none while the project lacks it."""
    if not importable("conductor/manager.py"):
        return []
    return [Daemon("batch-conductor", (str(layout.BIN / "nova-batch-conductor"),
                                       "--config-file", str(CONDUCTOR_CONF)),
                   reads=(CONDUCTOR_CONF,))]


def agent(host: Host, inside: tuple[str, ...]) -> list[Daemon]:
    """Return the agent's daemon of a host, none while the project lacks it."""
    if not importable("agent/manager.py"):
        return []
    return [Daemon(f"batch-agent-{host.name}",
                   (*inside, str(layout.BIN / "nova-batch-agent"),
                    "--config-file", str(agent_conf(host))), reads=(agent_conf(host),))]


def relay(host: Host, inside: tuple[str, ...]) -> list[Daemon]:
    """Return the relay's daemon of a host, none while the project lacks it."""
    if not importable("relay/service.py"):
        return []
    return [Daemon(f"batch-relay-{host.name}",
                   (*inside, str(layout.BIN / "nova-batch-relay"),
                    "--config-file", str(relay_conf(host))), reads=(relay_conf(host),))]


def paste(stock: str) -> str:
    """Return Nova's pipelines with our filter right before the application, if there is one.

    The filter comes in by the entry point of the installed project; without it Nova stays as it is.
    """
    if not importable("api/filter.py"):
        return stock
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read_string(stock)
    application = "osapi_compute_app_v21"
    for section in parser.sections():
        for key, value in parser.items(section):
            words = value.split()
            if len(words) > 1 and words[-1] == application:
                parser.set(section, key, " ".join([*words[:-1], "batch_evacuate", application]))
    parser.add_section("filter:batch_evacuate")
    parser.set("filter:batch_evacuate", "use", "egg:nova-batch-migrate#batch_evacuate")
    parser.set("filter:batch_evacuate", "config_file", str(API_CONF))
    output = io.StringIO()
    parser.write(output)
    return output.getvalue()

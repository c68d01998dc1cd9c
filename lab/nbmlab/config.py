"""Renders the configuration files of lab/etc into the state directory.

Called by up before anything starts. A file whose content did not change is not rewritten.
"""
import base64
import hashlib
import json
import os
import pathlib

from nbmlab import layout, project
from nbmlab.layout import Options
from nbmlab.rendering import KEYSTONE_URL, rabbit_url, template, write


def render_all(options: Options) -> None:
    """Write every configuration file of the cloud."""
    for directory in (layout.ETC, layout.RUN, layout.LOG, layout.VAR, layout.VAR / "locks",
                      layout.VAR / "nova", layout.VAR / "neutron"):
        directory.mkdir(parents=True, exist_ok=True)
    common = {
        "controller": layout.CONTROLLER, "keystone": KEYSTONE_URL, "region": layout.REGION,
        "rabbit": rabbit_url("nova", ""), "rabbit_port": layout.RABBIT_PORT,
        "database": "mysql+pymysql://root@localhost",
        "socket": f"unix_socket={layout.MYSQL_SOCKET}",
        "instances": layout.INSTANCES, "var": layout.VAR, "etc": layout.ETC, "venv": layout.VENV,
        "max_live_migrations": options.max_live_migrations,
        "dictionary_mib": options.dictionary_mib}
    common["auth"] = template("auth.conf", common).rstrip()
    for name in ("keystone.conf", "placement.conf", "glance-api.conf", "neutron.conf", "nova.conf",
                 "rabbitmq.conf"):
        write(layout.ETC / name, template(name, common))
    for host in options.host_list:
        write(layout.ETC / f"nova-{host.name}.conf",
              template("nova-host.conf", common | {
                  "name": host.name, "address": host.address,
                  "migration_address": options.migration_address(host)}))
    write(layout.ETC / "rabbitmq-definitions.json", _definitions())
    _fernet_keys(layout.VAR / "fernet")
    _fernet_keys(layout.VAR / "credential")
    write(layout.ETC / "api-paste.ini", project.paste(
        (layout.VENV / "etc/nova/api-paste.ini").read_text()))
    project.render(common, options)
    _openrc("admin", "admin", "admin", layout.OPENRC)
    _openrc("demo", "demo", "demo", layout.STATE / "openrc-demo")


def _fernet_keys(directory: pathlib.Path) -> None:
    """Make a Fernet key repository: key 0 is staged, key 1 is primary."""
    if directory.exists():
        return
    directory.mkdir(mode=0o700)
    for name in ("0", "1"):
        key = directory / name
        key.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        key.chmod(0o600)


def _definitions() -> str:
    """Return RabbitMQ's users, vhosts and permissions as its definitions file.

    Nova has vhost "/". API and conductor share `batch`, conductor and agents `batch-agents`; there
    a user per host may read nothing but its own queues, and bind them to its own routing keys only
    (design section 5).
    """
    users = ["nova", "batch-api", "batch-conductor",
             *(f"agent-{host.name}" for host in layout.ALL_HOSTS)]
    permissions = [_permission("nova", "/"), _permission("batch-api", "batch"),
                   _permission("batch-conductor", "batch"),
                   _permission("batch-conductor", "batch-agents")]
    topics = []
    for host in layout.ALL_HOSTS:
        user, name = f"agent-{host.name}", host.name.replace(".", "\\.")
        own = rf"nova_batch_agent\.{name}([._].*)?"
        permissions.append({
            "user": user, "vhost": "batch-agents", "configure": f"^(nova_batch_agent|{own})$",
            "write": f"^(amq\\.default|{own})$", "read": f"^(nova_batch_agent|{own})$"})
        topics.append({"user": user, "vhost": "batch-agents", "exchange": "nova_batch_agent",
                       "write": "^$", "read": f"^{own}$"})
    return json.dumps({
        "users": [{"name": name, "tags": "", "hashing_algorithm": "rabbit_password_hashing_sha256",
                   "password_hash": _password_hash(name)}
                  for name in users],
        "vhosts": [{"name": name} for name in ("/", "batch", "batch-agents")],
        "permissions": permissions, "topic_permissions": topics}, indent=1) + "\n"


def _permission(user: str, vhost: str) -> dict[str, str]:
    return {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}


def _password_hash(name: str) -> str:
    # The salt is a function of the name, so that the file stays the same from one `up` to the next.
    salt = hashlib.sha256(name.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + name.encode()).digest()).decode()


def _openrc(user: str, password: str, project_name: str, path: pathlib.Path) -> None:
    write(path, "".join(f"export {name}={value}\n" for name, value in {
        "OS_AUTH_URL": f"{KEYSTONE_URL}/v3", "OS_USERNAME": user, "OS_PASSWORD": password,
        "OS_PROJECT_NAME": project_name, "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default", "OS_IDENTITY_API_VERSION": "3",
        "OS_REGION_NAME": layout.REGION, "OS_COMPUTE_API_VERSION": "2.95",
        "NBM_LAB": layout.STATE, "PATH": f"{layout.BIN}:$PATH"}.items()))

"""Fills the templates of lab/etc and writes files only when they change.

Used by config and project.
"""
import pathlib
import string

from nbmlab import layout

KEYSTONE_URL = f"http://{layout.CONTROLLER}:{layout.PORTS['keystone']}"


def template(name: str, values: dict[str, object]) -> str:
    """Return a template of lab/etc with its ${names} filled in; an unknown name is an error."""
    return string.Template((layout.LAB_SOURCE / "etc" / name).read_text()).substitute(values)


def write(path: pathlib.Path, text: str) -> None:
    """Write a file unless it says the same already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def rabbit_url(user: str, vhost: str) -> str:
    """Return an oslo.messaging URL of the lab's broker; an empty vhost is RabbitMQ's "/".

    A user's password is its name: the broker listens on the lab's own bridge only.
    """
    return (f"rabbit://{user}:{user}@{layout.CONTROLLER}:{layout.RABBIT_PORT}/{vhost or '%2F'}")

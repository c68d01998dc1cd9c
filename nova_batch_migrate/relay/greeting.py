"""The first words on a connection of two relays: which group, what for, and that both know it.

Called by source.py (asks) and destination.py (lets in). Lines of JSON on the TLS connection, before
anything else. A stranger is never told why it got nothing.
"""

import dataclasses
import hmac
import json
import os
import ssl
from collections.abc import Callable

from nova_batch_migrate import exception
from nova_batch_migrate.relay import base_images, channel, values

#: What a connection is for, beside the scopes of the group's logs.
CONTROL = ""
_LINE_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Guest:
    """Who was let in: a planned source, for a group that is open here."""

    group: values.Group
    #: CONTROL, or the scope of a log.
    purpose: str
    #: Grows with every connection for the same purpose; an old one is never taken again.
    session: int
    #: Whether its log begins anew, and with which pages of base images it would.
    anew: bool
    static: base_images.Claim | None = None


def introduce(connection: ssl.SSLSocket, group: values.Group, purpose: str, session: int,
              anew: bool = False, static: base_images.Claim | None = None) -> dict:
    """Speak as the group's source; return what the destination answered.

    ``anew``: the destination is to forget the log of an earlier connection. ``static``: what the
    log would begin with.
    """
    challenge = bytes.fromhex(read_line(connection)["challenge"])
    mine = os.urandom(channel.CHALLENGE_BYTES)
    bound = (group.id, purpose, str(session), group.source, group.destination)
    write_line(connection, {
        "group": group.id, "purpose": purpose, "session": session, "anew": anew,
        "challenge": mine.hex(), "static": static and dataclasses.asdict(static),
        "proof": channel.proof(group.token, values.SOURCE, challenge, *bound)})
    answer = read_line(connection)
    expected = channel.proof(group.token, values.DESTINATION, mine, *bound)
    if not hmac.compare_digest(expected, str(answer.get("proof"))):
        raise exception.RelayError(
            reason=f"the relay of {group.destination} does not know the group {group.id}.")
    return answer


def receive(connection: ssl.SSLSocket, find: Callable[[str], values.Group | None]
            ) -> tuple[Guest, dict]:
    """Return who came and the beginning of the answer that is due; RelayError for strangers.

    ``find`` gives the group that this host is a destination of. The caller adds to the answer what
    the purpose needs and sends it with :func:`write_line`.
    """
    challenge = os.urandom(channel.CHALLENGE_BYTES)
    write_line(connection, {"challenge": challenge.hex()})
    hello = read_line(connection)
    group = find(str(hello.get("group")))
    if group is None:
        raise exception.RelayError(reason="no such group is open here.")
    if group.source not in channel.peer_names(connection):
        raise exception.RelayError(
            reason=f"the certificate does not name {group.source}, the group's source.")
    purpose, session = hello.get("purpose"), hello.get("session")
    scopes = {member.scope for member in group.members}
    if not isinstance(session, int) or purpose not in {CONTROL} | scopes - {None}:
        raise exception.RelayError(reason="the group has no such log.")
    bound = (group.id, purpose, str(session), group.source, group.destination)
    expected = channel.proof(group.token, values.SOURCE, challenge, *bound)
    if not hmac.compare_digest(expected, str(hello.get("proof"))):
        raise exception.RelayError(reason="the peer does not know the group's token.")
    theirs = bytes.fromhex(str(hello.get("challenge")))
    answer = {"proof": channel.proof(group.token, values.DESTINATION, theirs, *bound)}
    return Guest(group, purpose, session, bool(hello.get("anew")),
                 base_images.Claim.read(hello.get("static"))), answer


def read_line(connection: ssl.SSLSocket) -> dict:
    """Return the next line of JSON, and not a byte behind it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > _LINE_BYTES:
            raise exception.RelayError(reason="the peer ended the conversation.")
        line += byte
    try:
        said = json.loads(line)
    except ValueError as error:
        raise exception.RelayError(reason="the peer speaks no JSON.") from error
    if not isinstance(said, dict):
        raise exception.RelayError(reason="the peer speaks no JSON.")
    return said


def write_line(connection: ssl.SSLSocket, said: dict) -> None:
    """Send one line of JSON."""
    connection.sendall(json.dumps(said).encode() + b"\n")

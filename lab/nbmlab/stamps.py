"""Remembers what is already done, keyed by the content of what it was done from.

Used by install and images; a changed key means "do it again", a missing stamp "do it".
"""
import hashlib
from collections.abc import Callable

from nbmlab import layout


def digest(*parts: object) -> str:
    """Return a short hex digest over texts, bytes and the content of files (pathlib.Path)."""
    total = hashlib.sha256()
    for part in parts:
        if hasattr(part, "read_bytes"):
            part = part.read_bytes()
        elif not isinstance(part, bytes):
            part = str(part).encode()
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:32]


def once(name: str, key: str, action: Callable[[], None]) -> bool:
    """Do the action unless it was done with the same key; tell whether it was done now."""
    stamp = layout.STAMPS / name
    if stamp.exists() and stamp.read_text() == key:
        return False
    action()
    layout.STAMPS.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    return True

"""The secret seed of page fingerprints: derived on each host, never sent.

Used by measurement.py. Without the seed nobody can make a page that collides with another's on
purpose, nor look up a content by its fingerprint. Hosts with the same ``fingerprint_secret`` agree
on the seed of a day; fingerprints of unequal epochs are not compared (design 3).
"""

import dataclasses
import datetime
import hashlib
import secrets

_SEED_PERSON = b"nbm-page-seed"
_SKETCH_PERSON = b"nbm-sketch-key"
_CHECK_PERSON = b"nbm-key-check"


@dataclasses.dataclass(frozen=True)
class EpochKey:
    """The seed that holds for one day (UTC), and the key of the identities that leave the host."""

    epoch: str
    seed: int = dataclasses.field(repr=False)
    #: Hex, 32 bytes; empty where no other host has the secret, so that nothing could be compared.
    sketch_key: str = dataclasses.field(default="", repr=False)
    #: The epoch, and what shows whether two hosts have the same secret.
    key_id: str = ""


class KeySource:
    """Derives epoch keys from the deployment secret, or from a random one of this process."""

    def __init__(self, secret: str | None):
        self._shared = bool(secret)
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def current(self, now: datetime.datetime) -> EpochKey:
        """Return the key of the day that ``now`` (aware) lies in."""
        epoch = now.astimezone(datetime.UTC).date().isoformat()
        seed = int.from_bytes(self._derive(epoch, _SEED_PERSON, 8), "big")
        if not self._shared:
            return EpochKey(epoch, seed)
        check = self._derive(epoch, _CHECK_PERSON, 4).hex()
        return EpochKey(epoch, seed, self._derive(epoch, _SKETCH_PERSON, 32).hex(),
                        f"{epoch}/{check}")

    def _derive(self, epoch: str, person: bytes, size: int) -> bytes:
        # hashed first: BLAKE2b takes keys of at most 64 bytes
        return hashlib.blake2b(epoch.encode(), key=hashlib.sha256(self._secret).digest(),
                               digest_size=size, person=person).digest()

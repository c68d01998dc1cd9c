"""The secret seed of page fingerprints: derived on each host, never sent.

Used by measurement.py. Without the seed nobody can make a page that collides with another's on
purpose, nor look up a content by its fingerprint. Hosts with the same ``fingerprint_secret`` agree
on the seed of a day; fingerprints of unequal epochs are not compared (design 3).
"""

import dataclasses
import datetime
import hashlib
import secrets

_PERSON = b"nbm-page-seed"


@dataclasses.dataclass(frozen=True)
class EpochKey:
    """The seed that holds for one day (UTC)."""

    epoch: str
    seed: int = dataclasses.field(repr=False)


class KeySource:
    """Derives epoch keys from the deployment secret, or from a random one of this process."""

    def __init__(self, secret: str | None):
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def current(self, now: datetime.datetime) -> EpochKey:
        """Return the key of the day that ``now`` (aware) lies in."""
        epoch = now.astimezone(datetime.UTC).date().isoformat()
        # hashed first: BLAKE2b takes keys of at most 64 bytes
        digest = hashlib.blake2b(epoch.encode(), key=hashlib.sha256(self._secret).digest(),
                                 digest_size=8, person=_PERSON).digest()
        return EpochKey(epoch, int.from_bytes(digest, "big"))

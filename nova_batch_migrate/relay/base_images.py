"""Pages of Nova's base images, for dictionaries that know them before the first guest comes.

Asked by source.py and destination.py when a log begins. Both hosts read their own file; only names
and a checksum cross. Where the two differ, or one has no such file, the log begins without.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from oslo_log import log

from nova_batch_migrate.relay import settings
from nova_batch_migrate.relay.layout import PAGE_BYTES

LOG = log.getLogger(__name__)
#: Of the images of instances, as Nova names them.
_NAME = re.compile(r"[0-9a-f]{40}")
_MOST_IMAGES = 4
#: Of a dictionary: what moves with the guests needs room as well.
_MOST_SHARE = 0.25
_CHUNK_BYTES, _MOST_READ = 1 << 20, 8


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a source says of the pages that it would begin a log with."""

    names: tuple[str, ...]
    pages: int
    checksum: str

    @classmethod
    def read(cls, said) -> "Claim | None":
        """Return a peer's claim; None for none, and for what is none."""
        try:
            names = tuple(map(str, said["names"]))
            claim = cls(names, int(said["pages"]), str(said["checksum"]))
        except (TypeError, KeyError, ValueError):
            return None
        whole = 0 < len(names) <= _MOST_IMAGES and all(_NAME.fullmatch(name) for name in names)
        return claim if whole and claim.pages > 0 else None


class BaseImages:
    """The base images of this host; ``most_bytes`` of their pages serve a dictionary."""

    def __init__(self, directory: str, most_bytes: int):
        self._directory = pathlib.Path(directory)
        self._most_pages = most_bytes // PAGE_BYTES if directory else 0

    def begin(self, dictionary_bytes: int) -> tuple[Claim, np.ndarray] | None:
        """Return what a log of that size may begin with at its source; None for nothing."""
        most = min(self._most_pages, int(_MOST_SHARE * dictionary_bytes) // PAGE_BYTES)
        names = self._newest() if most else ()
        pages = self._pages(names, most) if names else ()
        if not len(pages):
            return None
        return Claim(names, most, settings.checksum(pages).hex()), pages

    def match(self, claim: Claim | None) -> np.ndarray | None:
        """Return the same pages at the destination; None where they are not the same."""
        if claim is None or claim.pages > self._most_pages:
            return None
        pages = self._pages(claim.names, claim.pages)
        return pages if len(pages) and settings.checksum(pages).hex() == claim.checksum else None

    def _newest(self) -> tuple[str, ...]:
        """Return the images in use: Nova touches them, now and then."""
        try:
            found = [(each.stat().st_mtime, each.name) for each in self._directory.iterdir()
                     if _NAME.fullmatch(each.name)]
        except OSError as error:
            LOG.info("no base images of Nova: %s", error)
            return ()
        return tuple(name for _, name in sorted(found, reverse=True)[:_MOST_IMAGES])

    def _pages(self, names: tuple[str, ...], most: int) -> np.ndarray:
        return different_pages([self._directory / name for name in names], most)


def different_pages(images: Sequence[pathlib.Path], most: int) -> np.ndarray:
    """Return different pages of images, as many from the beginning of each as all have room for.

    The same files give the same pages. What can't be read is left out; of an image that holds
    little but zeros no more than eight times of what is wanted is read.
    """
    share, chosen = most // len(images), {bytes(PAGE_BYTES): None}
    for image in images:
        end = len(chosen) + share
        try:
            with image.open("rb") as file:
                for _ in range(_MOST_READ * share * PAGE_BYTES // _CHUNK_BYTES + 1):
                    if len(chosen) >= end or not (chunk := file.read(_CHUNK_BYTES)):
                        break
                    for at in range(0, len(chunk) - PAGE_BYTES + 1, PAGE_BYTES):
                        if len(chosen) < end:
                            chosen[chunk[at:at + PAGE_BYTES]] = None
        except OSError as error:
            LOG.info("base image %s: %s", image.name, error)
    pages = b"".join(list(chosen)[1:])
    return np.frombuffer(pages, np.uint8).reshape(-1, PAGE_BYTES)

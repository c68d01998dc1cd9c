"""What both ends of a log agree upon, as the encoder says it in the log's first frame.

The static dictionary itself does not cross: its checksum does.
"""
import dataclasses
import hashlib
import struct
from collections.abc import Mapping

import numpy as np

from nova_batch_migrate.relay.admission import Recurring
from nova_batch_migrate.relay.wire import CodecError

VERSION = 4
CHECKSUM_BYTES = 32
_FORM = struct.Struct("<HBBQQQ32s")
MIN_DICTIONARY_BYTES = 4 << 20
CONTROL_WINDOW_LOG = 20
MIN_WINDOW_LOG, MAX_WINDOW_LOG = 17, 29


@dataclasses.dataclass(frozen=True)
class LogSettings:
    """Settings of a log."""

    dictionary_bytes: int = 512 << 20   # of pages, on each side
    window_log: int = 27                # of the zstd context of pages in full
    credit_bytes: int = 8 << 20         # raw bytes of a stream that may be under way
    under_way_bytes: int = 32 << 20     # of the wire, until the peer has applied them
    level: int | None = 1               # of zstd; None: nothing is compressed
    most_delta_words: int = 256         # a page that differs in more words crosses in full
    static: np.ndarray | None = None    # (pages, 4096) u8, all different: base_images
    # The encoder's alone: what of round 0 is let in; None: everything, as long as there is room.
    recurring: Recurring | None = None
    # Of servers, until whose end the pages of others stay if they can, by those others.
    kept_for: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.dictionary_bytes < MIN_DICTIONARY_BYTES:
            raise ValueError(f"dictionary_bytes is {self.dictionary_bytes}; set it to "
                             f"{MIN_DICTIONARY_BYTES} or more")
        if not MIN_WINDOW_LOG <= self.window_log <= MAX_WINDOW_LOG:
            raise ValueError(f"window_log is {self.window_log}; set it to a number from "
                             f"{MIN_WINDOW_LOG} to {MAX_WINDOW_LOG}")


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The part of the settings that the decoder needs."""

    dictionary_bytes: int
    window_log: int
    credit_bytes: int
    static_pages: int
    static_checksum: bytes

    @classmethod
    def of(cls, settings: LogSettings) -> "Agreement":
        static = settings.static
        return cls(settings.dictionary_bytes, settings.window_log, settings.credit_bytes,
                   0 if static is None else len(static), checksum(static))

    def pack(self) -> bytes:
        return _FORM.pack(VERSION, self.window_log, 0, self.dictionary_bytes, self.credit_bytes,
                          self.static_pages, self.static_checksum)

    @classmethod
    def unpack(cls, payload, max_dictionary_bytes: int) -> "Agreement":
        """Read what the encoder says; CodecError where this side can't do it."""
        try:
            version, window_log, _, dictionary, credit, static, digest = _FORM.unpack(payload)
        except struct.error:
            raise CodecError("the log's settings have another length") from None
        if version != VERSION:
            raise CodecError(f"the peer speaks version {version} of the log, this relay "
                             f"{VERSION}; bring both hosts to one version")
        if not MIN_DICTIONARY_BYTES <= dictionary <= max_dictionary_bytes:
            raise CodecError(f"the peer wants a dictionary of {dictionary} bytes, this host allows "
                             f"{max_dictionary_bytes}; set dictionary_bytes alike on both")
        if not MIN_WINDOW_LOG <= window_log <= MAX_WINDOW_LOG or not 0 < credit < 1 << 40:
            raise CodecError("the log's settings are out of bounds")
        return cls(dictionary, window_log, credit, static, digest)


def checksum(static: np.ndarray | None) -> bytes:
    """Return what two hosts compare to know that their static dictionaries are the same."""
    digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    if static is not None:
        digest.update(np.ascontiguousarray(static))
    return digest.digest()

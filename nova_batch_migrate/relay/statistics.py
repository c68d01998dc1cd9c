"""What became of a stream's bytes, counted where it is decided.

Kept per stream by the encoder and added up per server, log and group by whoever asks.
"""
import dataclasses


@dataclasses.dataclass
class Statistics:
    """Counters of raw bytes by their fate, and of what crossed for them."""

    raw_bytes: int = 0              # of the migration stream
    wire_bytes: int = 0             # of frames
    zero_bytes: int = 0             # guest memory in zero pages (4096 each)
    self_duplicate_bytes: int = 0   # pages that the same server had sent
    cross_server_bytes: int = 0     # pages that another server had sent, or the base images
    delta_bytes: int = 0            # pages sent as difference from another
    literal_bytes: int = 0          # pages sent in full
    verbatim_bytes: int = 0         # all that is no page record
    reference_wire_bytes: int = 0   # what crossed: control part with references and deltas,
    literal_wire_bytes: int = 0     # and pages in full, after compression
    changed_raw_bytes: int = 0      # pages with content behind round 0,
    changed_wire_bytes: int = 0     # and the wire bytes of the blocks that held them

    @property
    def compressed_bytes(self) -> int:
        """Bytes that zstd took off pages in full."""
        return self.literal_bytes - self.literal_wire_bytes

    def add(self, other: "Statistics") -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def as_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self) | {"compressed_bytes": self.compressed_bytes}

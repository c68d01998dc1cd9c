"""Words for a terminal: tenants' text made harmless, widths, units.

Used by every view of this plug-in. A server's name is its tenant's choice and may hold escape
sequences, newlines or text that reverses its direction; none of them may reach a terminal.
"""

import unicodedata
from collections.abc import Sequence

_MIB = 1024**2
# Control, format (bidirectional overrides, zero width), surrogates, line and paragraph separators.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape(value: object) -> str:
    """Return ``value`` as text with every character that could steer a terminal spelt out."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in _HARMFUL else c
        for c in text
    )


def width(text: str) -> int:
    """Return the columns that escaped ``text`` takes on a terminal."""
    return sum(_columns(c) for c in text)


def fit(text: str, columns: int) -> str:
    """Return ``text`` cut or filled with blanks to exactly ``columns`` columns."""
    if width(text) > columns:
        kept, used = [], 0
        for c in text:
            if used + _columns(c) > columns - 1:
                break
            kept.append(c)
            used += _columns(c)
        text = "".join(kept) + ("…" if columns > 0 else "")
    return text + " " * (columns - width(text))


def _columns(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def size(size_bytes: float | None) -> str:
    """Return bytes as MiB or GiB."""
    if size_bytes is None:
        return ""
    mib = size_bytes / _MIB
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.1f} MiB"


def rate(bytes_per_second: float | None) -> str:
    """Return a speed in MiB per second; nothing for none."""
    return f"{bytes_per_second / _MIB:.1f} MiB/s" if bytes_per_second else ""


def clock(seconds: float | None) -> str:
    """Return a span as m:ss or h:mm:ss."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds(value: float | None) -> str:
    """Return seconds with one decimal."""
    return "" if value is None else f"{value:.1f}"


def interval(ends: Sequence[float | None]) -> str:
    """Return an interval as whole seconds; one that is open above ends with a plus."""
    low, high = ends
    return f"{low:.0f}+" if high is None else f"{low:.0f}-{high:.0f}"


def milliseconds(value_seconds: float | None) -> str:
    """Return seconds as whole milliseconds."""
    return "" if value_seconds is None else f"{value_seconds * 1000:.0f} ms"

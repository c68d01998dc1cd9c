"""Numbers that parser, matcher, codec and their C twin (_speed.c) agree upon.

Imported by every module of the relay's core. Holds constants only.
"""
import enum

PAGE_BYTES = 4096
HEADER_BYTES = 8
RECORD_BYTES = HEADER_BYTES + PAGE_BYTES
ZERO_RECORD_BYTES = HEADER_BYTES + 1
PAGE_WORDS = PAGE_BYTES // 8
BITMAP_BYTES = PAGE_WORDS // 8

#: Where the numbers of the second ring, of pages that guests have written meanwhile, begin: a log
#: never has so many pages.
LATE = 1 << 40

# Columns of a run: kind, offset in the data, count (bytes if verbatim), header of the first
# record, key of its RAM block.
RUN_COLUMNS = 5


class Run(enum.IntEnum):
    """What a stretch of a stream is."""

    VERBATIM = 0    # bytes as they are
    ZERO = 1        # records of zero pages at consecutive addresses
    PAGES = 2       # records of pages at consecutive addresses
    BARE = 3        # pages without a record's header


#: Bytes of a stream that one thing of a run stands for.
SIZES = {Run.VERBATIM: 1, Run.ZERO: ZERO_RECORD_BYTES, Run.PAGES: RECORD_BYTES,
         Run.BARE: PAGE_BYTES}


class Op(enum.IntEnum):
    """How the content of a page crosses."""

    LITERAL = 0         # in full, compressed; both sides insert it
    RAW = 1             # in full, as it is (it looks random); both sides insert it
    TRANSIENT = 2       # as LITERAL, not inserted
    TRANSIENT_RAW = 3   # as RAW, not inserted
    REFERENCE = 4       # the page of that number
    DELTA = 5           # words that differ from the page of that number; inserted under a new one
    UPDATE = 6          # the same, written over that page
    TRANSIENT_DELTA = 7     # as DELTA, not inserted


class Stop(enum.IntEnum):
    """Why a scan of records ended."""

    MORE = 0        # the data end inside a record
    OTHER = 1       # a record that is neither page nor zero with CONTINUE
    FULL = 2        # no more rows for runs

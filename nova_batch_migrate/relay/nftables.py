"""The relay's one nftables table, held by this process: it vanishes with it, ``kill -9`` included.

Used by redirect.py. Talks to the kernel through libnftables, because a table with ``flags owner``
belongs to the socket that made it. Never touches another table.
"""

import ctypes
import threading

from nova_batch_migrate import exception

_LIBRARY = "libnftables.so.1"


class Ruleset:
    """A connection to nf_tables; what :meth:`run` makes with ``flags owner`` lives as long."""

    def __init__(self):
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise exception.RelayError(
                reason=f"{_LIBRARY} is missing ({error}): install the nftables package.") from error
        for name, result, arguments in (
                ("nft_ctx_new", ctypes.c_void_p, [ctypes.c_uint32]),
                ("nft_ctx_free", None, [ctypes.c_void_p]),
                ("nft_ctx_buffer_error", ctypes.c_int, [ctypes.c_void_p]),
                ("nft_ctx_buffer_output", ctypes.c_int, [ctypes.c_void_p]),
                ("nft_ctx_get_error_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
                ("nft_run_cmd_from_buffer", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p])):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._lock = threading.Lock()
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise exception.RelayError(reason="nf_tables gives no socket.")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Carry out commands of nft's language, all or none; RelayError with nft's own words."""
        with self._lock:
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            told = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise exception.RelayError(
                reason=f"nftables refused: {told.decode(errors='replace').strip()}. The relay "
                       "needs CAP_NET_ADMIN and a kernel with nf_tables (5.12 or newer).")

    def close(self) -> None:
        """Give the socket back, and with it every table that it owns."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None

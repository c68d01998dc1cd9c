"""What --wait shows while a batch migration runs: redrawn in place, or a line per change.

Made by wait.open_view() for the stream the operator looks at. A view is given what the API
answered; it never asks, sleeps or decides.
"""

import datetime
import os
from collections.abc import Callable
from typing import Any, TextIO

from nova_batch_migrate.osc import tables, text

_NAME_COLUMNS = 32
_BAR_COLUMNS = 24
_STEP_PERCENT = 10
#: Of plain lines: each look costs the cloud that is being worked on some of its processor time.
_INTERVAL_SECONDS, _LONGEST_INTERVAL_SECONDS, _INTERVAL_SHARE = 3.0, 6.0, 0.1
_STATES_IN_PERCENT = ("migrating", "completed")
_STATES_SHOWN_FIRST = ("migrating", "failed")


def _now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()


class PlainView:
    """Time-stamped lines, only for what has changed; for files, pipes and logs."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime.datetime] = _now):
        self._stream = stream
        self._now = now
        self._status: str | None = None
        self._step = 0
        self._servers: dict[str, str] = {}

    def show(self, batch: Any) -> None:
        """Print what is different from the last call."""
        if batch.status != self._status:
            self._status = batch.status
            self._line(f"batch migration {batch.id}: {text.escape(batch.status)}")
        for server in sorted(batch.servers or [], key=tables.in_order):
            if self._servers.get(server["id"]) != server["status"]:
                self._servers[server["id"]] = server["status"]
                self._line(self._server_text(server))
        step = int(batch.progress or 0) // _STEP_PERCENT
        if step > self._step:
            self._step = step
            left = f", {text.clock(batch.eta_seconds)} left" if batch.eta_seconds else ""
            self._line(f"{step * _STEP_PERCENT} % of all bytes done{left}")

    @staticmethod
    def interval_seconds(batch: Any) -> float:
        """Return when to ask again: nobody looks on, so the sooner the nearer the end is."""
        return min(_LONGEST_INTERVAL_SECONDS, max(
            _INTERVAL_SECONDS, (batch.eta_seconds or 0.0) * _INTERVAL_SHARE))

    def notice(self, message: str) -> None:
        """Print something that is not the batch's state."""
        self._line(text.escape(message))

    def close(self) -> None:
        """End the view; nothing to put back."""

    @staticmethod
    def _server_text(server: dict[str, Any]) -> str:
        line = f"{text.escape(server['name'])}: {text.escape(server['status'])}"
        if server["status"] == "migrating":
            line += f" {text.escape(server['source'])} -> {text.escape(server['destination'])}"
            if server["projected_seconds"] is not None:
                line += f", projected {text.seconds(server['projected_seconds'])} s"
        elif server["status"] == "completed" and server["actual_seconds"] is not None:
            line += f" in {text.seconds(server['actual_seconds'])} s"
        elif why := tables.why(server):
            line += f": {text.escape(why)}"
        return line

    def _line(self, line: str) -> None:
        self._stream.write(f"{self._now().isoformat(timespec='seconds')} {line}\n")
        self._stream.flush()


class LiveView:
    """The whole batch redrawn in place on a terminal of any, also changing, size."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._batch: Any = None
        self._notice = ""
        self._drawn: list[str] = []

    def show(self, batch: Any) -> None:
        """Draw the state of ``batch`` over the last drawing."""
        self._batch, self._notice = batch, ""
        self._draw()

    @staticmethod
    def interval_seconds(batch: Any) -> float:
        """Return when to ask again: somebody looks on."""
        return 1.0

    def notice(self, message: str) -> None:
        """Show ``message`` under the last known state until the next state comes."""
        self._notice = message
        self._draw()

    def close(self) -> None:
        """Leave the last drawing where it is and give the cursor back."""
        if self._drawn:
            self._stream.write("\x1b[?25h")
            self._stream.flush()
        self._drawn = []

    def _draw(self) -> None:
        columns, rows = os.get_terminal_size(self._stream.fileno())
        # Serial consoles and containers often know no size and say 0.
        columns, rows = max(columns or 80, 20), max(rows or 24, 5)
        lines = self._lines(columns - 1, rows - 1)
        # A narrowed terminal has wrapped the last drawing, which then takes more rows.
        up = sum(max(1, -(-text.width(line) // columns)) for line in self._drawn)
        self._stream.write(
            ("\x1b[?25l" if not self._drawn else f"\x1b[{min(up, rows - 1)}F")
            + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        )
        self._stream.flush()
        self._drawn = lines

    def _lines(self, columns: int, rows: int) -> list[str]:
        lines = self._batch_lines() if self._batch is not None else []
        if self._notice:
            lines.append(text.escape(self._notice))
        servers = list(self._batch.servers or []) if self._batch is not None else []
        free_rows = rows - len(lines) - 1
        if servers and free_rows > 0:
            lines += self._server_lines(servers, free_rows)
        return [text.fit(line, columns).rstrip() for line in lines]

    def _batch_lines(self) -> list[str]:
        batch = self._batch
        servers = batch.servers or []
        percent = min(max(float(batch.progress or 0), 0.0), 100.0)
        filled = round(_BAR_COLUMNS * percent / 100)
        speed = sum(server["bytes_per_second"] or 0 for server in servers)
        done = sum(server["status"] == "completed" for server in servers)
        staying = sum(server["status"] == "skipped" for server in servers)
        left = f"  {text.clock(batch.eta_seconds)} left" if batch.eta_seconds else ""
        if batch.bandwidth_bytes_per_second:
            left = f" of {text.rate(batch.bandwidth_bytes_per_second)}{left}"
        return [
            f"Batch migration {batch.id}: {text.escape(batch.status)}",
            f"[{'#' * filled}{'.' * (_BAR_COLUMNS - filled)}] {percent:3.0f} %  "
            f"{done} of {len(servers) - staying} moved  {text.rate(speed)}{left}".rstrip(),
        ]

    @staticmethod
    def _server_lines(servers: list[dict[str, Any]], free_rows: int) -> list[str]:
        servers = sorted(servers, key=tables.in_order)
        shown = servers
        if len(servers) > free_rows:
            # Too many for the terminal: those that move now matter most.
            urgent = [s for s in servers if s["status"] in _STATES_SHOWN_FIRST]
            others = [s for s in servers if s["status"] not in _STATES_SHOWN_FIRST]
            others.sort(key=lambda server: server["status"] in ("completed", "skipped"))
            shown = sorted((urgent + others)[: free_rows - 1], key=tables.in_order)
        rows = [
            (
                text.fit(name, _NAME_COLUMNS) if text.width(name) > _NAME_COLUMNS else name,
                server["status"],
                f"{server['progress'] or 0:.0f}" if server["status"] in _STATES_IN_PERCENT else "",
                text.rate(server["bytes_per_second"]),
                text.rate(server.get("bandwidth_bytes_per_second")),
                text.clock(server["eta_seconds"]),
                server["destination"] or "",
                tables.why(server),
            )
            for server in shown
            for name in (text.escape(server["name"]),)
        ]
        lines = tables.grid(
            ("SERVER", "STATE", "%", "RATE", "SHARE", "ETA", "TO", ""), rows,
            right="% RATE SHARE ETA",
        )
        if len(shown) < len(servers):
            lines.append(f"... and {len(servers) - len(shown)} more")
        return lines

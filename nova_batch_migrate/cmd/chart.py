"""Draws a plan as a picture: FIG. 3 as a heat map, and beside it the timeline of the groups.

Called by cmd.plan for ``--chart``. Needs matplotlib (the extra `chart`); computes no plan. Server
names are their tenants' text: they are escaped, and never read as formulas.
"""

import dataclasses
import pathlib
import warnings

import numpy

from nova_batch_migrate import exception
from nova_batch_migrate.osc import text
from nova_batch_migrate.planning import commonality, doubt
from nova_batch_migrate.planning.plan import Plan
from nova_batch_migrate.planning.result import PlanGroup, PlanMember

#: More rows than this are no picture any more.
MOST_SERVERS = 300
#: Names of more columns than this are cut; up to so many servers pairs have their figures.
NAME_COLUMNS, FIGURES_SERVERS = 26, 14
TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
MIB = 1024 ** 2
GROUP_COLOURS = ("#3b6fb6", "#d9822b", "#4c9f70", "#b04a5a", "#7a5ba8", "#8a6d3b", "#3a9ea5",
                 "#c0629f")
GREY, LIGHT = "#8c8c8c", "#e6e6e6"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A server's line in both pictures."""

    server_id: str
    name: str
    source: str
    #: None: it stays.
    group: PlanGroup | None = None
    member: PlanMember | None = None
    #: When its group begins, in seconds from the start of the batch.
    begins_seconds: float = 0.0
    reason: str = ""


def draw(plan: Plan, path: pathlib.Path) -> None:
    """Write the picture of the plan as PNG.

    Raises PlanningError where matplotlib is missing or the plan has too many servers.
    """
    rows = _rows(plan)
    if len(rows) > MOST_SERVERS:
        raise exception.PlanningError(
            reason=f"a chart shows {MOST_SERVERS} servers at the most, this plan has {len(rows)}; "
                   "plan fewer hosts at a time")
    try:
        from matplotlib import figure
    except ImportError as error:
        raise exception.PlanningError(
            reason="a chart needs matplotlib: pip install 'nova-batch-migrate[chart]'") from error
    # An empty plan is a picture of one empty row.
    rows = rows or [_Row("", "", "", reason="nothing to move")]
    count = len(rows)
    row_inches = min(0.42, max(0.135, 13 / count))
    side = max(2.2, row_inches * count)
    names = min(2.6, max((text.width(_short(row.name)) for row in rows), default=4) * 0.085 + 0.3)
    timeline = 7.5
    width, height = names + side + 0.3 + timeline + 0.4, side + names + 1.5
    picture = figure.Figure(figsize=(width, height), dpi=130)
    bottom = 0.95 / height
    heat = picture.add_axes((names / width, bottom, side / width, side / height))
    time = picture.add_axes(((names + side + 0.3) / width, bottom, timeline / width,
                             side / height))
    size = min(9.0, row_inches * 72 * 0.78)
    _heat_map(picture, heat, plan, rows, size, (names / width, 0.42 / height,
                                                side / width, 0.12 / height))
    _timeline(time, rows, size)
    picture.text(0.2 / width, 1 - 0.3 / height, _title(plan), fontsize=11, weight="bold",
                 va="center", parse_math=False)
    with warnings.catch_warnings():
        # A name in a script that no font here has: boxes in the picture say so well enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        picture.savefig(path, format="png")


def _title(plan: Plan) -> str:
    hosts = ", ".join(sorted({group.source for group in plan.groups})) or "nothing to move"
    moving = sum(len(group.members) for group in plan.groups)
    return text.escape(
        f"{hosts}: {_count(moving, 'server')} in {_count(len(plan.groups), 'group')}, "
        f"{len(plan.staying)} staying; "
        f"projected {text.clock(plan.projected_seconds)}, {text.size(plan.wire_bytes)} on the "
        f"wire{' through a relay' if plan.relay else ''}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rows(plan: Plan) -> list[_Row]:
    """Return the rows: by source, group and order of the plan; who stays comes last."""
    rows, begins = [], {}
    for group in plan.groups:
        start = begins.get(group.source, 0.0)
        rows += [_Row(m.server_id, m.name, group.source, group, m, start) for m in group.members]
        begins[group.source] = start + group.projected_seconds
    rows.sort(key=lambda row: row.source)
    return rows + [_Row(s.server_id, s.name, s.source, reason=s.reason) for s in plan.staying]


def _short(name: str) -> str:
    escaped = text.escape(name)
    return text.fit(escaped, min(NAME_COLUMNS, text.width(escaped)))


def shares(plan: Plan, ids: list[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return what each two have in common: bytes, and the share of the smaller; NaN = unknown."""
    place = {server_id: at for at, server_id in enumerate(ids)}
    common = numpy.full((len(ids), len(ids)), numpy.nan)
    share = common.copy()
    for told in plan.request.hosts:
        host, _ = doubt.believable(told)
        known = commonality.of_host(host)
        distinct = {s.id: s.distinct_pages for s in host.servers}
        here = [(column, place[i]) for column, i in enumerate(known.server_ids) if i in place]
        if not here or host.page_classes is None:
            continue
        columns, places = (numpy.array(part) for part in zip(*here, strict=True))
        pages = known.pair_pages()[numpy.ix_(columns, columns)]
        own = numpy.array([distinct[ids[at]] for at in places], dtype=float)
        smaller = numpy.maximum(1.0, numpy.minimum(own[:, None], own[None, :]))
        common[numpy.ix_(places, places)] = pages * commonality.PAGE_BYTES
        share[numpy.ix_(places, places)] = numpy.minimum(1.0, pages / smaller)
    numpy.fill_diagonal(common, numpy.nan)
    numpy.fill_diagonal(share, numpy.nan)
    return common, share


def _heat_map(picture, axes, plan: Plan, rows: list[_Row], size: float, bar_place) -> None:
    common, share = shares(plan, [row.server_id for row in rows])
    known = share[~numpy.isnan(share)]
    most = max(0.05, float(known.max())) if known.size else 1.0
    axes.set_facecolor(LIGHT)
    image = axes.imshow(share, cmap="YlGnBu", vmin=0.0, vmax=most, aspect="auto",
                        interpolation="nearest")
    names = [_short(row.name) for row in rows]
    for ticks, labels, turn in ((axes.set_yticks, axes.set_yticklabels, 0),
                                (axes.set_xticks, axes.set_xticklabels, 90)):
        ticks(range(len(rows)))
        labels(names, rotation=turn, fontsize=size, parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    _colour_names(axes, rows)
    if len(rows) <= FIGURES_SERVERS:
        for y, x in numpy.argwhere(~numpy.isnan(share)).tolist():
            axes.text(x, y, f"{common[y, x] / MIB:.0f}", ha="center", va="center",
                      fontsize=size * 0.85, color="white" if share[y, x] > 0.6 * most else "black")
    _frame_groups(axes, rows)
    bar = picture.colorbar(image, cax=picture.add_axes(bar_place), orientation="horizontal")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
    figures = ", figures in MiB" if len(rows) <= FIGURES_SERVERS else ""
    bar.set_label(f"in common, of the smaller server's distinct contents{figures}", fontsize=7)


def _colour(row: _Row) -> str:
    return GREY if row.group is None else GROUP_COLOURS[row.group.index % len(GROUP_COLOURS)]


def _colour_names(axes, rows: list[_Row]) -> None:
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, row in zip(labels, rows, strict=True):
            label.set_color(_colour(row))


def _spans(rows: list[_Row]) -> list[tuple[int, int]]:
    """Return the first row of each group and the row behind its last."""
    spans = []
    for at, row in enumerate(rows):
        if row.group is None:
            continue
        if spans and rows[spans[-1][0]].group is row.group:
            spans[-1] = spans[-1][0], at + 1
        else:
            spans.append((at, at + 1))
    return spans


def _frame_groups(axes, rows: list[_Row]) -> None:
    from matplotlib import patches
    for begin, end in _spans(rows):
        axes.add_patch(patches.Rectangle(
            (begin - 0.5, begin - 0.5), end - begin, end - begin, fill=False,
            edgecolor=_colour(rows[begin]), linewidth=1.6, clip_on=False))


def _timeline(axes, rows: list[_Row], size: float) -> None:
    last = max((row.begins_seconds + row.group.projected_seconds
                for row in rows if row.group is not None), default=1.0)
    for at, row in enumerate(rows):
        if row.member is None:
            told = text.escape(f"stays: {row.reason}" if row.name else row.reason)
            axes.text(0.005, at, text.fit(told, 95).rstrip(),
                      transform=axes.get_yaxis_transform(), va="center", fontsize=size * 0.9,
                      color=GREY, parse_math=False)
            continue
        _bar(axes, at, row)
    for begin, end in _spans(rows):
        group, start = rows[begin].group, rows[begin].begins_seconds
        axes.fill_between([start, start + group.projected_seconds], begin - 0.5, end - 0.5,
                          color=_colour(rows[begin]), alpha=0.10, linewidth=0)
        _label(axes, group, start, begin, end, last, min(8.0, size))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, last * 1.02)
    axes.set_yticks([])
    axes.set_xticks(numpy.arange(0, last * 1.02, _tick_seconds(last)))
    axes.xaxis.set_major_formatter(lambda value, _: text.clock(value))
    axes.tick_params(axis="x", labelsize=8, labeltop=True, top=True)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("from the start of the batch: set up by Nova (pale), stream (full), "
                    "90 % interval (line); a group's number and duration", fontsize=7)
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)


def _tick_seconds(last: float) -> float:
    """Return the distance of ticks: whole seconds, minutes or hours, nine ticks at the most."""
    return next((step for step in TICK_SECONDS if last / step <= 9), last / 9)


def _label(axes, group: PlanGroup, start: float, begin: int, end: int, last: float,
           size: float) -> None:
    """Write a group's number and duration beside its span, inside where there is no room."""
    ends, middle = start + group.projected_seconds, (begin + end - 1) / 2
    at, row, shift, side = ends, middle, 4, "left"
    if ends > 0.85 * last:
        at, row, shift, side = ((start, middle, -4, "right") if start > 0.15 * last
                                else (ends, begin, -4, "right"))
    axes.annotate(f"{group.index + 1}: {text.clock(group.projected_seconds)}", (at, row),
                  (shift, 0), textcoords="offset points", va="center", ha=side, fontsize=size,
                  color=GROUP_COLOURS[group.index % len(GROUP_COLOURS)])


def _bar(axes, at: int, row: _Row) -> None:
    projection = row.member.projection
    begin = row.begins_seconds + projection.queue_seconds
    axes.barh(at, projection.nova_seconds, left=begin, height=0.62, color=_colour(row), alpha=0.35)
    axes.barh(at, projection.stream_seconds, left=begin + projection.nova_seconds, height=0.62,
              color=_colour(row))
    low, high = projection.interval_seconds
    if high is not None:
        axes.plot([row.begins_seconds + low, row.begins_seconds + high], [at, at], color="black",
                  linewidth=0.9)

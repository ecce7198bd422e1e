"""How charts look: what stays with a label through a document, text, the key below a chart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from flowbench.report.charts.words import short

# `export.svg` replaces these by the colours of a page; no other thing has them.
INK, MUTED, GRID = "#222222", "#666677", "#dddddd"
# Of Okabe and Ito without the yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")
DASHES = ((1, 0), (5, 3), (2, 2), (9, 3, 2, 3))
WIDTH, HEIGHT = 340, 220  # pixels of the part inside the axes; text of 12 is 7 pt in a column
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
SIZE = 12
CHARACTER = 7.0  # pixels of a usual letter in the widest font that a page may fall back on
LINE = 16  # pixels from line to line of a key
SAMPLE, SYMBOL = 26, 8  # pixels of the piece of line, or of the symbol alone, beside a text of it
LEFT = 45  # pixels that a key may stand out to the left, below the numbers of an axis


@dataclass(frozen=True)
class Look:
    """What tells one label from the others."""

    colour: str
    shape: str
    dash: tuple[int, ...]


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each of a document's labels; equal sets of labels give equal looks.

    The first variant of each method gets its colour first, so that methods differ in colour and
    more variants of them in colour and dashes. 35 looks differ in colour and shape.
    """
    seen: dict[str, int] = {}
    order = []
    for label in sorted(set(labels)):
        method = label.partition(" ")[0]
        order.append((seen.get(method, 0), label))
        seen[method] = seen.get(method, 0) + 1
    return {label: _look(place) for place, (_, label) in enumerate(sorted(order))}


def _look(place: int) -> Look:
    lap = place // len(COLOURS)
    dash = DASHES[lap % len(DASHES)]
    return Look(COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)], dash)


def scales(labels: Sequence[str], found: Mapping[str, Look]) -> dict[str, Any]:
    """Channels by name for marks whose data have a field `label`; the key is drawn by `key`."""
    some = [found[label] for label in labels]

    def scale(values: list[Any]) -> alt.Scale:
        return alt.Scale(domain=list(labels), range=values)

    return {
        "colour": alt.Color("label:N", scale=scale([look.colour for look in some]), legend=None),
        "shape": alt.Shape("label:N", scale=scale([look.shape for look in some]), legend=None),
        "dash": alt.StrokeDash(
            "label:N", scale=scale([list(look.dash) for look in some]), legend=None
        ),
    }


def key(labels: Sequence[str], channels: Mapping[str, Any], line: bool = True) -> Any:
    """The key below a chart: a symbol and a text for each label, in as many columns as fit."""
    rows, height = _places(labels, SAMPLE if line else SYMBOL)
    along = alt.Scale(domain=[0, WIDTH], nice=False, zero=False)
    start, middle, end = (
        alt.X(f"{field}:Q", scale=along, axis=None) for field in ("start", "middle", "words")
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False), axis=None)
    base = alt.Chart(alt.Data(values=rows)).encode(y=y)
    words = base.mark_text(align="left", color=INK, fontSize=SIZE).encode(x=end, text="text:N")
    symbols = base.mark_point(filled=True, size=45, opacity=1)
    symbols = symbols.encode(x=middle, color=channels["colour"], shape=channels["shape"])
    pieces = base.mark_rule(strokeWidth=2).encode(
        x=start, x2="end:Q", color=channels["colour"], strokeDash=channels["dash"]
    )
    layers = [words, pieces, symbols] if line else [words, symbols]
    return alt.layer(*layers).properties(width=WIDTH, height=height)


def _places(labels: Sequence[str], wide: float) -> tuple[list[dict[str, Any]], int]:
    """Where the parts of a key lie, in pixels, and its height."""
    texts = short(labels)
    for columns in range(min(4, len(labels)), 0, -1):
        tall = -(-len(labels) // columns)
        parts = [labels[start : start + tall] for start in range(0, len(labels), tall)]
        widths = [wide + 24 + CHARACTER * max(len(texts[label]) for label in p) for p in parts]
        if sum(widths) <= LEFT + WIDTH + 24 or columns == 1:
            break
    rows = []
    for number, part in enumerate(parts):
        start = sum(widths[:number]) - LEFT
        for line, label in enumerate(part):
            place = {"start": start, "middle": start + wide / 2, "end": start + wide}
            place |= {"words": start + wide + 6, "y": (line + 0.5) * LINE}
            rows.append({"label": label, "text": texts[label], **place})
    return rows, tall * LINE


def finished(chart: Any) -> dict[str, Any]:
    """The specification of a chart in the style of all."""
    axis: dict[str, Any] = {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": MUTED,
        "domainColor": MUTED,
    }
    axis |= {"gridColor": GRID, "labelFontSize": SIZE, "titleFontSize": SIZE}
    axis |= {"titleFontWeight": "normal", "titlePadding": 6, "labelLimit": 0}
    heading: dict[str, Any] = {
        "color": INK,
        "fontSize": SIZE,
        "fontWeight": "normal",
        "anchor": "start",
    }
    edge = {"left": 4, "right": 10, "top": 4, "bottom": 4}
    chart = chart.configure(aria=False, background="transparent", font=FONT, padding=edge)
    chart = chart.configure_axis(**axis).configure_title(**heading).configure_view(stroke=None)
    return chart.to_dict(validate=False)  # the tests do: it takes a fifth of the time

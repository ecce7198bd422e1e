"""Charts as files and as parts of a page, without a browser and without the network."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import vl_convert

from flowbench.records import FlowbenchError
from flowbench.report.charts import words
from flowbench.report.charts.style import FONT, GRID, INK, MUTED
from flowbench.report.document import Chart

SUFFIXES = (".svg", ".png", ".pdf", ".json")
SCALE = 3  # pixels of a PNG for each of the chart's
NAMESPACE = "http://www.w3.org/2000/svg"
THEME = {INK: f"var(--ink, {INK})", MUTED: f"var(--muted, {MUTED})", GRID: f"var(--grid, {GRID})"}
SILENT = {"class", "role", "aria-roledescription", "aria-hidden", "pointer-events"}
USUAL = {("opacity", "1"), ("stroke-width", "1"), ("font-family", FONT)}
PLACES = {"transform", "d", "x1", "x2", "y1", "y2"}
LONG = re.compile(r"-?\d+\.\d{3,}(?:e[-+]?\d+)?")  # more digits than can be seen
ElementTree.register_namespace("", NAMESPACE)


def svg(chart: Chart) -> str:
    """A chart for a page: transparent, in the page's colours `--ink`, `--muted` and `--grid`.

    Its title and summary are inside; ids occur in no other chart. Equal charts give equal bytes.
    """
    root = _drawn(chart)
    for part in root.iter():
        for name in ("fill", "stroke"):
            if part.get(name) in THEME:
                part.set(name, THEME[part.attrib[name]])
    return ElementTree.tostring(root, encoding="unicode")


def check(path: Path) -> None:
    """Raise FlowbenchError unless the name of a file ends like one that `save` writes."""
    if path.suffix.lower() not in SUFFIXES:
        raise FlowbenchError(f"{path} is no chart: its name has to end in {', '.join(SUFFIXES)}")


def save(chart: Chart, path: Path) -> None:
    """Write a chart by the suffix of the file: SVG, PNG, PDF, or its Vega-Lite specification.

    Pictures are for print: dark on white, an SVG on nothing. Raises FlowbenchError for another
    suffix and where the file cannot be written.
    """
    from flowbench.checkpoints import write

    check(path)
    try:
        write(path, _content(chart, path.suffix.lower()))
    except OSError as error:
        raise FlowbenchError(f"{path} cannot be written: {error.strerror}") from error


def _content(chart: Chart, suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(chart.spec, indent=1, allow_nan=False) + "\n").encode()
    root = _drawn(chart)
    if suffix != ".svg":
        paper = ElementTree.Element(f"{{{NAMESPACE}}}rect", fill="white")
        paper.attrib |= {"width": "100%", "height": "100%"}
        root.insert(0, paper)
    drawing = ElementTree.tostring(root, encoding="unicode")
    if suffix == ".svg":
        return drawing.encode()
    if suffix == ".png":
        return vl_convert.svg_to_png(drawing, scale=SCALE)
    return vl_convert.svg_to_pdf(drawing)


def _drawn(chart: Chart) -> ElementTree.Element:
    """The SVG of a chart with its title and summary."""
    text = json.dumps(_printable(chart.spec), sort_keys=True, allow_nan=False)
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(text, allowed_base_urls=[]))
    name = f"{chart.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    _rename(root, name)
    for part in root.iter():
        _tidy(part)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    root.attrib |= {"font-family": FONT, "overflow": "visible"}
    for place, (tag, text) in enumerate((("title", chart.title), ("desc", chart.summary))):
        element = ElementTree.Element(f"{{{NAMESPACE}}}{tag}", id=f"{name}-{tag}")
        element.text = words.printable(text)
        root.insert(place, element)
    return root


def _printable(value: Any) -> Any:
    """A value with a sign in the place of all characters that an XML file cannot hold."""
    if isinstance(value, str):
        return words.printable(value)
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(part) for name, part in value.items()}
    return value


def _tidy(part: ElementTree.Element) -> None:
    """Leave out what says nothing, and digits that cannot be seen."""
    for name, value in list(part.attrib.items()):
        if name in SILENT or (name, value) in USUAL:
            del part.attrib[name]
        elif name in PLACES:
            part.set(name, LONG.sub(lambda found: f"{float(found[0]):.2f}", value))


def _rename(root: ElementTree.Element, name: str) -> None:
    """Number ids from 1 in the order of the drawing: the renderer counts on from chart to chart."""
    ids = [part.attrib["id"] for part in root.iter() if "id" in part.attrib]
    new = {old: f"{name}-{number}" for number, old in enumerate(ids, 1)}
    for part in root.iter():
        if "id" in part.attrib:
            part.set("id", new[part.attrib["id"]])
        for key, value in part.attrib.items():
            if found := re.fullmatch(r"url\(#(.+)\)", value):
                part.set(key, f"url(#{new[found[1]]})")

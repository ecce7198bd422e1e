"""Documents for the tests of the page, whose numbers are known."""

import math
import struct
import zlib
from dataclasses import replace

from flowbench.comparison.view import Cell, Section
from flowbench.report.document import Block, Chart, Details, Document, Picture
from flowbench.report.layout import MISSING, Table, Text

DRAWN = (
    '<svg viewBox="0 0 20 10" width="20" height="10" role="img"><title>A line</title>'
    '<path d="M0 0L20 10" stroke="var(--ink)"></path></svg>'
)


def svg(chart: Chart) -> str:
    """What a renderer would give for any chart."""
    return DRAWN


def png(width: int = 3, height: int = 2) -> bytes:
    """A black image."""

    def part(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\0" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", lines) + part(b"IEND", b"")


def number(value: float, spread: float | None = None) -> Text:
    """A number as a report writes it."""
    words = f"{value:.4g}" if spread is None else f"{value:.4g} ± {spread:.2g}"
    return Text(words, value=value)


def made(label: str, method: str, word: str = "") -> Details:
    """How a row was made; `word` goes wherever there is a text."""
    return Details(
        label=label,
        method=method,
        command=f"flowbench run {method} --dataset digits --nfe 1,2 --seed 0,1{word}",
        runs=(f"{method}-s0{word}", f"{method}-s1{word}"),
        traits={"teacher": f"edm{word}", "perceptual": ""},
        hashes={"data": f"7d64{word}", "code": f"21ab{word}"},
        environments=({"torch": f"2.9{word}", "python": f"3.11{word}"},),
        origins=("", f"friend.db{word}"),
    )


def section(dataset: str, n: int, **more) -> Section:
    """A section whose metrics have goals."""
    some = Section(dataset, "7d64d897", n, "1000 x 64", "as the data", **more)
    goals = {"fd": "min", "in-mode": "max", "is": "floor"}
    for name, goal in goals.items():
        some.cells["cfm", name, 1] = Cell({0: {0: 1.0}}, goal)
    return some


def digits(word: str = "") -> Block:
    """Four rows and a floor: missing values, equal values, an infinite one, a best one."""
    rows = [
        [Text(f"cfm{word}"), number(1), number(73.79, 4), number(0.5), Text(f"slow{word}")],
        [Text("cfm"), number(2), number(9.5, 0.2), Text(f"{MISSING}"), Text("fast")],
        [Text("lmm k=10"), number(1), replace(number(4.075, 0.11), best=True), number(math.inf),
         Text("slow")],
        [Text("lmm k=9"), number(1), Text("nan", value=math.nan), number(0.5), Text("")],
        [Text("floor (n = 600)"), Text(""), number(100.0), Text(""), Text("")],
    ]  # fmt: skip
    tags = [{"method": name, "nfe": nfe} for name, nfe in
            ((f"cfm{word}", "1"), ("cfm", "2"), ("lmm", "1"), ("lmm", "1"))]  # fmt: skip
    columns = ["method", "NFE", "fd", "in-mode", f"remark{word}"]
    table = Table(
        f"digits: 600 samples{word}", columns, rows, [f"a note{word}"], 2, [*tags, {"floor": "yes"}]
    )
    heads = ["method", "NFE", "paper", "published", "ours", "ours - published"]
    cells = [Text("lmm k=10"), number(1), Text(f"a paper{word}"), number(4.0), number(4.075, 0.11)]
    published = Table(
        f"Published{word}", heads, [[*cells, number(0.075)]], [], 2, [{"method": "lmm", "nfe": "1"}]
    )
    return Block(
        name="digits-600",
        section=section(f"digits{word}", 600),
        table=table,
        details=(made(f"cfm{word}", f"cfm{word}", word), made("lmm k=10", "lmm")),
        charts=(Chart("quality-fd", f"fd against NFE{word}", f"It falls.{word}", {}),),
        pictures=(Picture("samples", f"Samples{word}", f"Rows of digits.{word}", png()),),
        published=published,
    )


def moons(word: str = "") -> Block:
    """Two rows of another data set and another n, beside its usual protocol."""
    rows = [[Text("edm"), number(4), number(0.5)], [Text("lmm"), number(20), number(0.25)]]
    tags = [{"method": "edm", "nfe": "4"}, {"method": "lmm", "nfe": "20"}]
    table = Table("moons: 2000 samples", ["method", "NFE", "fd"], rows, [], 2, tags)
    differs = (f"fd: split train instead of test{word}",)
    return Block("moons-2000", section("moons", 2000, part=1, differs=differs), table)


def document(word: str = "") -> Document:
    """Two data sets and a failure; `word` is appended to texts of every kind."""
    row = [Text(f"digits-ctm-s0{word}"), Text(f"the loss became NaN{word}")]
    failures = Table(
        "Attempts that did not end well", ["run", "reason"], [row], [], 1,
        [{"dataset": "digits", "method": "ctm"}],
    )  # fmt: skip
    title, blocks = f"A leaderboard{word}", (digits(word), moons(word))
    return Document(title, blocks, failures, (f"A remark{word}",))


def large(sets: int, methods: int, nfes: int, metrics: int) -> Document:
    """`sets` x `methods` x `nfes` x `metrics` scores."""
    return Document("Large", tuple(_large(f"set{i}", methods, nfes, metrics) for i in range(sets)))


def _large(dataset: str, methods: int, nfes: int, metrics: int) -> Block:
    names = [f"method-{i} pairs=20000" for i in range(methods)]
    rows, tags = [], []
    for nfe in range(1, nfes + 1):
        for place, name in enumerate(names):
            values = [math.sin(1 + place * 7 + nfe * 3 + k) ** 2 for k in range(metrics)]
            cells = [number(value, value / 30) for value in values]
            rows.append([Text(name), number(3), number(nfe), *cells])
            tags.append({"method": f"method-{place}", "nfe": str(nfe)})
    columns = ["method", "seeds", "NFE", *(f"metric-{k}" for k in range(metrics))]
    table = Table(dataset, columns, rows, [], 3, tags)
    details = tuple(made(name, name.split()[0], "0123456789abcdef" * 4) for name in names)
    return Block(dataset, section(dataset, 50_000), table, details)

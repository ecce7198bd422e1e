"""Tables as LaTeX with booktabs: what goes into a paper.

Whatever stands in a table may have been written by a stranger, so every character that means
something to TeX comes out as the character itself.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from flowbench.report.layout import MISSING, Table, Text

HEAD = r"""% Tables of flowbench. In the preamble: \usepackage{booktabs} \usepackage{graphicx}
% A file of its own: \documentclass{article} \usepackage{booktabs,graphicx}
%   \begin{document} \input{THIS FILE} \end{document}"""
BEFORE = r"""\documentclass{article}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}"""
AFTER = r"\end{document}"
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # shrinks, never grows
ROWS = 40  # of one page; a longer table goes on in a further one
WIDE = 135  # characters of a line, above which further columns have a table of their own
LEAST = 80  # of them beside the labels, however long these are
PAGE = 10  # tables without text between them after which LaTeX is told to set them

# Braces around what TeX would join with its neighbour, or take for an argument of \\ before it.
ASCII = {
    **{char: "\\" + char for char in "&%$#_{}"},
    **{char: "{" + char + "}" for char in "[]*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"{\char96}",
    '"': r"{\char34}",
}
# TeX's commands by Unicode's names: of mathematics, then of text.
MATH = {
    **{"PLUS-MINUS SIGN": "pm", "MULTIPLICATION SIGN": "times", "MIDDLE DOT": "cdot"},
    **{"LESS-THAN OR EQUAL TO": "leq", "GREATER-THAN OR EQUAL TO": "geq", "INFINITY": "infty"},
    **{"NOT EQUAL TO": "neq", "ALMOST EQUAL TO": "approx", "MICRO SIGN": "mu"},
    "BULLET": "bullet",
    **{f"{way.upper()}WARDS ARROW": f"{way}arrow" for way in ("left", "right", "up", "down")},
}
TEXT = {
    **{"EN DASH": "textendash", "EM DASH": "textemdash", "HORIZONTAL ELLIPSIS": "ldots"},
    **{"LEFT SINGLE QUOTATION MARK": "textquoteleft"},
    **{"RIGHT SINGLE QUOTATION MARK": "textquoteright", "SECTION SIGN": "S"},
    **{"LEFT DOUBLE QUOTATION MARK": "textquotedblleft", "LATIN SMALL LETTER SHARP S": "ss"},
    **{"RIGHT DOUBLE QUOTATION MARK": "textquotedblright", "LATIN SMALL LETTER DOTLESS I": "i"},
    **{"LATIN SMALL LETTER AE": "ae", "LATIN CAPITAL LETTER AE": "AE"},
    **{f"LATIN SMALL LETTER {name} WITH STROKE": name.lower() for name in ("O", "L")},
    **{f"LATIN CAPITAL LETTER {name} WITH STROKE": name for name in ("O", "L")},
    **{"LATIN SMALL LIGATURE OE": "oe", "LATIN CAPITAL LIGATURE OE": "OE"},
}
SMALL = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi"),
    "omega",
)
CAPITAL = (  # the others look like Latin letters
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi"),
    "Omega",
)
COMMANDS = {
    **{name: f"$\\{word}$" for name, word in MATH.items()},
    **{name: f"\\{word}{{}}" for name, word in TEXT.items()},
    **{f"GREEK SMALL LETTER {word.upper()}": f"$\\{word}$" for word in SMALL},
    **{f"GREEK CAPITAL LETTER {word.upper()}": f"$\\{word}$" for word in CAPITAL},
    **{"MINUS SIGN": "$-$", "DEGREE SIGN": r"$^\circ$", "HYPHEN": "-", "NON-BREAKING HYPHEN": "-"},
    **{"SUPERSCRIPT ONE": "$^1$", "SUPERSCRIPT TWO": "$^2$", "SUPERSCRIPT THREE": "$^3$"},
}
ACCENTS = {
    **{"GRAVE ACCENT": "`", "ACUTE ACCENT": "'", "CIRCUMFLEX ACCENT": "^", "TILDE": "~"},
    **{"MACRON": "=", "BREVE": "u", "DOT ABOVE": ".", "DIAERESIS": '"', "RING ABOVE": "r"},
    **{"DOUBLE ACUTE ACCENT": "H", "CARON": "v", "CEDILLA": "c"},
}
LIGATURES = re.compile(r"(?<=([-',]))(?=\1)")


def latex(tables: Iterable[Table], document: bool = False) -> str:
    r"""Tables for `\input`, the best of a column in bold; as a `document` they compile alone."""
    labels: set[str] = set()
    found = [lines for table in tables for lines in _tables(table, labels)]
    pages = [
        lines + ("\n\\clearpage" if document and count % PAGE == 0 else "")
        for count, lines in enumerate(found, 1)
    ]
    parts = [BEFORE, *pages, AFTER] if document else [HEAD, *pages]
    return "\n\n".join(parts) + "\n"


def _tables(table: Table, labels: set[str]) -> Iterator[str]:
    """The environments of a table: one, or as many as it takes to stay legible on a page."""
    starts = range(0, len(table.rows), ROWS) or [0]
    parts = [(start, columns) for start in starts for columns in _parts(table)]
    for number, (start, columns) in enumerate(parts):
        part = Table(
            table.title + " (continued)" * (number > 0),
            [table.columns[column] for column in columns],
            [[row[column] for column in columns] for row in table.rows[start : start + ROWS]],
            table.notes if number == len(parts) - 1 else [],
            table.labels,
        )
        yield "\n".join(_environment(part, _label(table.title, labels)))


def _parts(table: Table) -> Iterator[list[int]]:
    """Groups of columns of some `WIDE` characters, each with the labels first."""
    widths = [
        max((len(row[n].words) for row in table.rows), default=0) for n in range(len(table.columns))
    ]
    widths = [max(width, len(name)) + 2 for width, name in zip(widths, table.columns, strict=True)]
    labels, part = list(range(table.labels)), list[int]()
    room = max(WIDE, sum(widths[: table.labels]) + LEAST)
    for column in range(table.labels, len(table.columns)):
        if part and sum(widths[n] for n in [*labels, *part, column]) > room:
            yield labels + part
            part = []
        part.append(column)
    yield labels + part


def _environment(table: Table, label: str) -> Iterator[str]:
    yield r"\begin{table}[htbp]"
    yield r"\centering\small"
    yield r"\setlength{\belowcaptionskip}{4pt}"
    yield r"\caption{" + escape(table.title) + "}"
    yield r"\label{tab:" + label + "}"
    yield FIT
    yield r"\begin{tabular}{" + "".join(_columns(table)) + "}"
    yield r"\toprule"
    yield _row([escape(column) for column in table.columns])
    yield r"\midrule"
    yield from (_row([_cell(text) for text in row]) for row in table.rows)
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    if table.notes:
        yield r"\par\smallskip"
        yield r"\parbox{\linewidth}{\raggedright\scriptsize"
        yield "\\par\n".join(map(escape, table.notes)) + "}"
    yield r"\end{table}"


def _label(title: str, labels: set[str]) -> str:
    """A word of plain letters for cross-references that no other table has."""
    word = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "table"
    count, label = 1, word
    while label in labels:
        count += 1
        label = f"{word}-{count}"
    labels.add(label)
    return label


def _columns(table: Table) -> Iterator[str]:
    """Numbers to the right, words to the left."""
    for column in range(len(table.columns)):
        words = [row[column].words for row in table.rows]
        some = [word for word in words if word not in ("", MISSING)]
        yield "r" if column and some and all(map(_numeric, some)) else "l"


def _numeric(words: str) -> bool:
    try:
        float(words.split()[0])
    except (ValueError, IndexError):
        return False
    return True


def _cell(text: Text) -> str:
    return r"\textbf{" + escape(text.words) + "}" if text.best else escape(text.words)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape(words: str) -> str:
    """Words that TeX prints as they are, in ASCII; characters that it has not by their number."""
    plain = " ".join("".join(map(_visible, unicodedata.normalize("NFC", words))).split())
    return "".join(_char(char) for char in LIGATURES.sub("\0", plain))


def _visible(char: str) -> str:
    """Line breaks and the like as a space; what has no shape is left out."""
    kind = unicodedata.category(char)
    if kind in ("Cf", "Cs", "Co", "Cn"):
        return ""
    return " " if kind[0] in "CZ" else char


def _char(char: str) -> str:
    if char == "\0":  # between two that TeX would join: --, '' and the like
        return "{}"
    if char.isascii():
        return ASCII.get(char, char)
    name = unicodedata.name(char, "").replace("LAMDA", "LAMBDA")
    if name in COMMANDS:
        return COMMANDS[name]
    base, *marks = list(unicodedata.normalize("NFD", char))
    accent = ACCENTS.get(unicodedata.name(marks[0]).removeprefix("COMBINING ")) if marks else None
    if accent and len(marks) == 1 and base.isascii() and base.isalpha():
        return f"\\{accent}{{{base}}}"
    return f"U+{ord(char):04X}"

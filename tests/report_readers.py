"""Reads the tables of a report back from each of its formats, by the rules of the format."""

import re
from html.parser import HTMLParser

TEX = {
    **{r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^"},
    **{r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"{\char96}": "`"},
    **{r"{\char34}": '"', r"$\pm$": "±", "{}": ""},
    **{"{" + char + "}": char for char in "[]*"},
    **{"\\" + char: char for char in "&%$#_{}"},
}
TEX_SIGNS = re.compile("|".join(map(re.escape, sorted(TEX, key=len, reverse=True))))


class Page(HTMLParser):
    """The tables of a page: captions, and cells as [words, value to sort by]."""

    def __init__(self, text):
        super().__init__()
        self.captions, self.rows, self.cell, self.hidden = [], [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "table":
            self.rows.append([])
        elif tag == "tr":
            self.rows[-1].append([])
        elif tag in ("th", "td"):
            self.cell = ["", given.get("data-value")]
            self.rows[-1][-1].append(self.cell)
        elif tag == "caption":
            self.cell = [""]
            self.captions.append(self.cell)
        elif tag == "span" and given.get("class") in ("goal", "sr"):
            self.hidden = True

    def handle_endtag(self, tag):
        if tag in ("th", "td", "caption"):
            self.cell = None
        self.hidden = self.hidden and tag != "span"

    def handle_data(self, data):
        if self.cell is not None and not self.hidden:
            self.cell[0] += data


def from_page(text):
    page = Page(text)
    for (caption,), rows in zip(page.captions, page.rows, strict=True):
        yield caption, [[words.strip() for words, _ in row] for row in rows]


def from_text(text):
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if len(lines) > 2 and re.fullmatch(r"-+(  -+)*", lines[2]):
            spans = [match.span() for match in re.finditer("-+", lines[2])]
            yield lines[0], [[line[a:b].strip() for a, b in spans] for line in lines[1:]]


def from_markdown(text):
    for block in text.split("\n\n**"):
        name, *lines = block.splitlines()
        rows = [line[1:] for line in lines if line.startswith("|")]
        cells = [re.findall(r"((?:\\.|[^|\\])*)\|", row) for row in rows]
        if cells:
            yield unescaped(name.strip("*")), [[without_bold(c) for c in row] for row in cells]


def without_bold(words):
    return unescaped(re.sub(r"^\*\*(.*)\*\*$", r"\1", words.strip()))


def unescaped(words):
    """Markdown's rule: a backslash before a sign of ASCII stands for the sign."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", words)


def from_latex(text):
    """What is too wide or long for a page goes on in another environment."""
    for block in text.split(r"\begin{table}")[1:]:
        name = re.search(r"^\\caption\{(.*)\}$", block, re.MULTILINE)[1]
        body = block.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
        lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r" \\")]
        rows = [re.split(r"(?<!\\)&", line) for line in lines]
        rows = [[untexed(re.sub(r"^\\textbf\{(.*)\}$", r"\1", c.strip())) for c in r] for r in rows]
        yield untexed(name.removesuffix(" (continued)")), rows


def untexed(words):
    return TEX_SIGNS.sub(lambda match: TEX[match[0]], words)


READERS = {"table": from_text, "md": from_markdown, "latex": from_latex, "html": from_page}


def numbers(form, text):
    """(table, row, NFE, metric) -> words, of the tables that have a row for each NFE."""
    found = {}
    for name, (columns, *rows) in READERS[form](text):
        if "NFE" not in columns or "published" in columns:
            continue
        last = columns.index("NFE")
        for row in rows:
            nfe = re.match(r"\d+|auto", row[last]) if len(row) == len(columns) else None
            for column, words in zip(columns, row, strict=True) if nfe else ():
                key = (name, row[0], 0 if nfe[0] == "auto" else int(nfe[0]), column)
                assert found.get(key, words) == words, "said twice, and not the same"
                found[key] = words
    return found

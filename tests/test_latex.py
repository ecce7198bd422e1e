"""Tables as LaTeX: they compile, and what strangers wrote comes out as text."""

import random
import re
import shutil
import subprocess

import pytest

from flowbench.comparison import published
from flowbench.report import reproduction
from flowbench.report.latex import PAGE, ROWS, escape, latex
from flowbench.report.layout import Table, Text

PACKAGES = "texlive-latex-base and texlive-latex-recommended"
compiled = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason=f"pdflatex is not installed: install {PACKAGES}"
)
# All that may stand in an escaped text: letters, harmless signs, and commands of ours.
TOKEN = r"[A-Za-z0-9 .,;:!?()/=+@'-]|\\[&%$#_{}]|\\[A-Za-z]+\{\}|\{[][*]\}|\{\}|\{\\char\d\d\}"
TOKEN += r"|\$\\[a-zA-Z]+\$|\$-\$|\$\^[123]\$|\$\^\\circ\$|\\[`'^~=.\"urHvc]\{[A-Za-z]\}"
SAFE = re.compile(f"(?:{TOKEN})*")
HOSTILE = [
    r"\input{/etc/passwd}",
    r"\end{document}",
    r"\write18{ls}",
    "% a comment",
    "a & b",
    "$x$ # _ { } ~ ^",
    "^^M ^^41",
    "a\nb\r\n\nc\td\x00e\x7f",
    "\\",
    "\\\\[3cm]",
    "[3cm] after a row's end",
    "* after a row's end",
    "--preset ''x'' ,,y !`?` \"q\" <a> |b|",
    "}{",
    "\u202eabc\u200b\ufeff",
    "\ud800",
    "中文 🙂 \u0301",
    "café, naïve, Erdős, Šid, İ ± × ≥ ≤ → ∞ µ σ Σ λ Ω 10² – — … ß ø Œ ł",  # noqa: RUF001
]


def table(rows=None, **values):
    rows = rows or [[Text("a"), Text("1.2 ± 0.1", best=True)], [Text("b"), Text("not measured")]]
    return Table(values.pop("title", "A title"), ["method", "fd @ 1"], rows, **values)


def lines(text):
    return [line for line in text.splitlines() if line.endswith(r" \\")]


def test_a_table_is_what_an_author_pastes():
    text = latex([table(notes=["floor: real data"])])
    assert text == (
        "% Tables of flowbench. In the preamble: \\usepackage{booktabs} \\usepackage{graphicx}\n"
        "% A file of its own: \\documentclass{article} \\usepackage{booktabs,graphicx}\n"
        "%   \\begin{document} \\input{THIS FILE} \\end{document}\n"
        "\n"
        "\\begin{table}[htbp]\n"
        "\\centering\\small\n"
        "\\setlength{\\belowcaptionskip}{4pt}\n"
        "\\caption{A title}\n"
        "\\label{tab:a-title}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        "method & fd @ 1 \\\\\n"
        "\\midrule\n"
        "a & \\textbf{1.2 $\\pm$ 0.1} \\\\\n"
        "b & not measured \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}}\n"
        "\\par\\smallskip\n"
        "\\parbox{\\linewidth}{\\raggedright\\scriptsize\n"
        "floor: real data}\n"
        "\\end{table}\n"
    )


@pytest.mark.parametrize("words", HOSTILE, ids=ascii)
def test_every_character_comes_out_as_itself(words):
    assert SAFE.fullmatch(escape(words)), escape(words)


def test_random_texts_are_escaped_too():
    draw = random.Random(0)
    signs = "\\{}$&#^_~%<>|`'\"-,[]*! \n"
    for _ in range(2000):
        some = [draw.choice(signs) for _ in range(draw.randrange(12))]
        some += [chr(draw.randrange(0x11000)) for _ in range(draw.randrange(4))]
        draw.shuffle(some)
        assert SAFE.fullmatch(escape("".join(some))), some


@pytest.mark.parametrize("words", [r"\input{x}", "100 %", "a_b", "^^M", "é", "$"])
def test_the_check_of_escaped_texts_catches_raw_ones(words):
    assert not SAFE.fullmatch(words)


@pytest.mark.parametrize(
    "words, text",
    [
        ("a_b & 100 % #1", r"a\_b \& 100 \% \#1"),
        ("1.2 ± 0.1", r"1.2 $\pm$ 0.1"),
        ("é É ü ő š ç", r"\'{e} \'{E} \"{u} \H{o} \v{s} \c{c}"),
        ("e\u0301", r"\'{e}"),
        ("≥ → σ Λ", r"$\geq$ $\rightarrow$ $\sigma$ $\Lambda$"),  # noqa: RUF001
        ("--preset", "-{}-preset"),
        ("''", "'{}'"),
        ("a\nb", "a b"),
        ("\u202ea\u200b", "a"),
        ("中", "U+4E2D"),
        (r"\x{y}", r"\textbackslash{}x\{y\}"),
    ],
)
def test_signs_and_letters_have_their_commands(words, text):
    assert escape(words) == text


def test_titles_columns_cells_and_notes_are_all_escaped():
    bad = r"\input{/etc/passwd}"
    text = latex([Table(bad, [bad, bad], [[Text(bad), Text(bad, best=True)]], [bad])])
    assert r"\input{/" not in text and text.count(r"\textbackslash{}input\{/etc/passwd\}") == 6


def test_numbers_stand_to_the_right_and_words_to_the_left():
    rows = [[Text("1"), Text("-1.5 ± 2"), Text("not measured"), Text("2412.06403, Table 2")]]
    rows += [[Text("2"), Text(""), Text("nan"), Text("")], [Text("")] * 4]
    text = latex([Table("t", ["a", "b", "c", "d"], rows)])
    assert r"\begin{tabular}{lrrl}" in text


def test_no_two_tables_share_a_label():
    text = latex([table(title="fid: ä % 5"), table(title="FID 5"), table(title="中"), table()])
    assert re.findall(r"\\label\{(.*)\}", text) == [
        *("tab:fid-5", "tab:fid-5-2", "tab:table", "tab:a-title"),
    ]


def test_a_long_table_goes_on_and_its_notes_stand_below_the_last():
    rows = [[Text(f"m{n}"), Text(str(n))] for n in range(2 * ROWS + 1)]
    text = latex([table(rows, notes=["once"])])
    assert text.count(r"\begin{table}") == text.count("method & fd @ 1") == 3
    assert text.count("(continued)") == 2 and text.count("once") == 1
    assert [line for line in lines(text) if line.startswith("m")][
        -1
    ] == rf"m{2 * ROWS} & {2 * ROWS} \\"
    assert sum(line.startswith("m") and line[1].isdigit() for line in lines(text)) == len(rows)


def test_a_wide_table_goes_on_with_its_labels_and_loses_no_column():
    names = ["method", *(f"fid5k @ {n}" for n in range(40))]
    text = latex(
        [Table("wide", names, [[Text("m"), *(Text(f"{n}.125 ± 0.012") for n in range(40))]])]
    )
    rows = [line for line in lines(text) if line.startswith("m &")]
    found = [cell for line in rows for cell in line.removesuffix(r" \\").split(" & ")[1:]]
    assert len(rows) > 1 and found == [rf"{n}.125 $\pm$ 0.012" for n in range(40)]
    long = Table("long", ["method", "a", "b"], [[Text("m" * 300), Text("1"), Text("2")]])
    assert latex([long]).count(r"\begin{table}") == 1, "a long label alone splits nothing"


def compile_(folder, text):
    """The log of pdflatex, in the folder, with no shell to escape to; None where it fails."""
    (folder / "main.tex").write_text(text, encoding="ascii")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run([*words, "main.tex"], cwd=folder, capture_output=True, timeout=60)
    return (folder / "main.log").read_text(errors="replace") if done.returncode == 0 else None


def tables():
    bad = [[Text(words), Text("1.5", best=True), Text(words)] for words in HOSTILE]
    return [
        Table("Hostile % \\title", ["method", "fd & 1", "^^M"], bad, HOSTILE),
        Table("Nothing", ["method", "fd"], []),
        *reproduction.published_tables(published.rows()),
    ]


@compiled
def test_a_document_compiles_and_no_file_was_read(tmp_path):
    log = compile_(tmp_path, latex(tables(), document=True))
    assert log is not None and (tmp_path / "main.pdf").stat().st_size > 10_000
    assert "/etc/passwd" not in log and "Overfull" not in log and "Too many" not in log


@compiled
def test_tables_compile_in_a_paper_that_takes_them_in(tmp_path):
    (tmp_path / "tables.tex").write_text(latex(tables()), encoding="ascii")
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    log = compile_(tmp_path, packages + r"\begin{document}\input{tables}\end{document}")
    assert log is not None and "Overfull" not in log


@compiled
def test_as_many_tables_as_one_likes_compile(tmp_path):
    many = [table(title=f"T{n}") for n in range(8 * PAGE)]
    assert compile_(tmp_path, latex(many, document=True)) is not None


@compiled
def test_a_text_that_is_not_escaped_would_not_compile(tmp_path):
    text = latex([table(title="TITLE")], document=True)
    assert compile_(tmp_path, text) is not None
    assert compile_(tmp_path, text.replace("TITLE", r"a_b \nosuchcommand")) is None

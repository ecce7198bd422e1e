"""Suites, presets and flowbench.toml of strangers: any size, depth and characters are one line."""

import pytest

from flowbench import presets, suites, toml_files
from flowbench.discovery import settings
from flowbench.records import FlowbenchError

pytestmark = pytest.mark.usefixtures("little_memory")

HEAD = '[suite]\ntitle = "t"\ndataset = "moons"\n'
ROW = '[[method]]\nlabel = "a"\nmethod = "cfm"\n'
ESC, BIDI, HIDDEN = "\\u001b]52;c;eA==\\u0007", "\\u202Etxt.exe", "\\u200b"
WRONG = {
    "lists without end": "a = " + "[" * 100_000,
    "lists in lists": "a = " + "[" * 200 + "]" * 200,
    "tables in tables": "a = " + "{a = " * 300 + "1" + "}" * 300,
    "keys in keys": ".".join(["a"] * 100_000) + " = 1",
    "a number of many digits": "a = " + "9" * 5000,
    "a file of megabytes": "# " + "x" * 2**20,
    "half a character": 'a = "\\ud800"',
    "no text": "a = \x00",
    "an escape in a title": f'[suite]\ntitle = "{ESC}"\n' + ROW,
    "an escape in a label": HEAD + ROW.replace('"a"', f'"{ESC}"'),
    "text that runs backwards in a label": HEAD + ROW.replace('"a"', f'"{BIDI}"'),
    "what cannot be seen in a label": HEAD + ROW.replace('"a"', f'"{HIDDEN}"'),
    "two lines in a label": HEAD + ROW.replace('"a"', '"a\\nb"'),
    "an escape in an option": HEAD + ROW + f'options = {{"{ESC}" = 1}}\n',
    "an escape in a source": HEAD + ROW + f'[[expect]]\nlabel = "a"\nsource = "{ESC}"\n',
    "an escape in a wrong key": HEAD + f'"{ESC}" = 1\n' + ROW,
    "a count beyond counting": HEAD + f"steps = {'9' * 300}\n" + ROW,
    "nfe beyond counting": HEAD + "nfe = [99999999999]\n" + ROW,
    "a seed beyond counting": HEAD + "seeds = [99999999999]\n" + ROW,
    "seconds without end": HEAD + ROW + "seconds = inf\n",
    "seconds that are none": HEAD + ROW + "seconds = nan\n",
    "a long wrong value": HEAD + f'steps = "{"x" * 100_000}"\n' + ROW,
    "billions of runs": HEAD
    + f"seeds = {list(range(20_000))}\n"
    + "".join(ROW.replace('"a"', f'"a{i}"') for i in range(9_000)),
    "many mistakes": HEAD + "wrong = 1\n" + "".join(f"[[method]]\nx{i} = 1\n" for i in range(9000)),
    "many of one label": HEAD + ROW * 9000,
}


@pytest.mark.parametrize("what", WRONG)
def test_a_suite_that_nobody_means_is_one_line(tmp_path, what):
    path = tmp_path / "suite.toml"
    path.write_text(WRONG[what], encoding="utf-8")
    with pytest.raises(FlowbenchError) as raised:
        suites.read(path)
    text = str(raised.value)
    assert text.isprintable() and str(path) in text and len(text) < 2000


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 'x\x1b'", bytes(100)])
def test_bytes_that_are_no_text_are_one_line(tmp_path, content):
    path = tmp_path / "suite.toml"
    path.write_bytes(content)
    with pytest.raises(FlowbenchError) as raised:
        suites.read(path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "word", ["../x", "/etc/passwd", "a/../../b", "~/x", "..\\x", "con\u0301", ""]
)
@pytest.mark.parametrize("key", ["dataset", "method", "teacher", "preset", "network"])
def test_names_that_are_paths_lead_nowhere(flowbench, tmp_path, key, word):
    text = HEAD + ROW
    text = (
        text.replace('"moons"', f"'{word}'") if key == "dataset"
        else text.replace('"cfm"', f"'{word}'") if key == "method"
        else text + f"{key} = '{word}'\n"
    )  # fmt: skip
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    code, output = flowbench("run", "--suite", str(path), "--dry-run")
    if word or key in ("dataset", "method"):
        assert code == 2 and "Traceback" not in output, output
    assert {p.name for p in tmp_path.iterdir()} <= {"suite.toml", "cache"}


@pytest.mark.slow
def test_a_label_that_is_a_path_names_no_file(flowbench, tmp_path):
    size = "steps = 2\nbatch = 4\nsamples = 20\nnfe = [1]\n"
    path = tmp_path / "suite.toml"
    path.write_text(HEAD + size + ROW.replace('"a"', '"../../x"'), encoding="utf-8")
    code, output = flowbench("run", "--suite", str(path), "--jobs", "1")
    assert code == 0, output
    made = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")}
    assert made <= {"suite.toml", "cache", "results.db", "results.db-wal", "results.db-shm", "runs"}
    assert not (tmp_path.parent.parent / "x").exists() and not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[plugins]\npaths = " + "[" * 100_000,
        "[plugins]\npaths = ['a']\n# " + "x" * 2**20,
        f'[plugins]\npaths = ["{ESC}"]',
        f'[plugins]\n"{ESC}" = []',
        "[plugins]\npaths = [['a']]",
        "plugins = 5",
        "[plugins]\ndisabled = " + "9" * 5000,
    ],
    ids=range(7),
)
def test_a_flowbench_toml_that_nobody_means_is_one_line(flowbench, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowbench.toml").write_text(text)
    with pytest.raises(FlowbenchError) as raised:
        settings.wanted()
    assert str(raised.value).isprintable()
    code, output = flowbench("methods")
    assert code == 2 and "Traceback" not in output


def test_presets_of_a_plugin_are_read_as_carefully(tmp_path, monkeypatch):
    path = tmp_path / "cfm.toml"
    monkeypatch.setattr(presets, "place", lambda method: path)
    for text in ("a = " + "[" * 100_000, f'[x]\ntitle = "{ESC}"', "# " + "x" * 2**20):
        path.write_text(text)
        with pytest.raises(FlowbenchError) as raised:
            presets.of.__wrapped__("cfm")
        assert str(raised.value).isprintable()


def test_a_file_that_people_write_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('a = "é ± 漢"\n[b.c]\nd = [[1, 2], [3]]\n', encoding="utf-8")
    assert toml_files.read(path) == {"a": "é ± 漢", "b": {"c": {"d": [[1, 2], [3]]}}}

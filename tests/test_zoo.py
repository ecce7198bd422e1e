"""A zoo of bad plugins: each is named with its cure, and every other command still works."""

import json
import subprocess
import sys

import pytest
from loose_plugins import GOOD, SPIRAL, TINY, without

from flowbench import nets, solvers, training  # noqa: F401 - or the limit meets them
from flowbench.discovery import doors

# name: (source, what the message says). Those that cannot even be loaded:
CAGES = {
    "ImportError": ("import a_package_nobody_has\n" + GOOD, "what has a_package_nobody_has"),
    "SyntaxError": (GOOD + "\ndef broken(:\n", "SyntaxError: invalid syntax (line"),
    "SystemExit": ("import sys\nsys.exit('no gpu')\n" + GOOD, "SystemExit: no gpu"),
    "endless": ("while True:\n    pass\n" + GOOD, "took more than 0.3 s to import"),
    "swallows": (
        "import time\nwhile True:\n    try:\n        time.sleep(1)\n"
        "    except Exception:\n        pass\n" + GOOD,
        "FLOWBENCH_DISABLED=my-idea",
    ),
    "wrong type": (GOOD.replace("(frozen=True)", ""), "write @dataclass(frozen=True) above it"),
    "misspelt hook": (without("def train", "def trian"), "there is no hook trian: did you mean tr"),
    "wrong argument": (
        without("(self, data, run)", "(self, dataset, run)"),
        "hook train takes no dataset: it takes data, run",
    ),
    "no hook": (without("@hookimpl\n    def sample", "def sample"), "write @hookimpl above it"),
}
EXTENSIONS = {
    "ImportError": ("import a_package_nobody_has\n" + SPIRAL, "what has a_package_nobody_has"),
    "SyntaxError": (SPIRAL + "\ndef broken(:\n", "SyntaxError: invalid syntax (line"),
    "SystemExit": ("import sys\nsys.exit(3)\n" + SPIRAL, "SystemExit: 3"),
    "endless": ("while True:\n    pass\n" + SPIRAL, "took more than 0.3 s to import"),
    "wrong type": (SPIRAL.replace("return [Metric", "return ['m'] + [Metric"), "is no flowbench.M"),
    "raises": (SPIRAL.replace("return [Data", "1 / 0\n    return [Data"), "ZeroDivisionError"),
    "misspelt hook": (SPIRAL.replace("def metrics", "def metric"), "did you mean metrics"),
    "wrong argument": (
        SPIRAL.replace("def metrics()", "def metrics(data)"),
        "hook metrics takes no data: it takes nothing",
    ),
}


@pytest.fixture
def caged(tmp_path, monkeypatch):
    """Put a source behind a door."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWBENCH_PLUGIN_SECONDS", "0.3")

    def put(source):
        path = tmp_path / "bad_idea.py"
        path.write_text(source)
        monkeypatch.setenv("FLOWBENCH_PLUGINS", "bad_idea.py")

    return put


LIGHT = [["--help"], ["methods"], ["methods", "cfm"], ["datasets"], ["plugins"]]
HEAVY = [["run", "cfm", *TINY, "--quiet"], ["compare", "--metric", "w2"], ["report"]]


def others_work(flowbench, *more):
    """Commands that have nothing to do with the plugin."""
    for words in (*LIGHT, *more):
        code, output = flowbench(*words)
        assert code == 0 and "Traceback" not in output, (words, output)


@pytest.mark.parametrize("name", CAGES)
def test_a_bad_method_is_named_and_nothing_else_breaks(name, caged, flowbench):
    source, said = CAGES[name]
    caged(source)
    others_work(flowbench, *(HEAVY if name in ("SyntaxError", "endless") else []))
    code, output = flowbench("run", "my-idea", *TINY)
    assert code == 2 and "bad_idea.py" in output and "Traceback" not in output, output
    assert all("bad_idea.py" in line for line in output.strip().splitlines()), "no traceback"
    code, output = flowbench("plugins", "--json")
    (row,) = [row for row in json.loads(output) if row["distribution"] == "bad_idea.py"]
    assert code == 0 and row["state"] == "broken" and said in row["why"], row["why"]
    code, output = flowbench("plugins", "--why", row["name"])
    assert code == 0 and said in output
    if name in ("ImportError", "SystemExit", "endless"):
        assert "Traceback" in output and "bad_idea.py" in output


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_bad_extension_is_left_out_with_a_line(name, caged, flowbench):
    source, said = EXTENSIONS[name]
    caged(source)
    code, output = flowbench("datasets")
    assert code == 0 and "digits" in output
    (line,) = [line for line in output.splitlines() if line.startswith("left out: ")]
    assert "bad-idea from bad_idea.py" in line and said in line, line
    assert line.endswith("(more: flowbench plugins --why bad-idea)")
    others_work(flowbench, *(HEAVY if name in ("SystemExit", "endless") else []))
    code, output = flowbench("run", "cfm", "--dataset", "spiral", *TINY[2:])
    assert code == 2 and "no data set 'spiral'" in output


def test_a_chatty_plugin_does_not_spoil_what_a_program_reads(caged, monkeypatch):
    caged("print('hello from the import')\n" + SPIRAL)
    monkeypatch.setenv("FLOWBENCH_PLUGIN_SECONDS", "30")
    words = [sys.executable, "-m", "flowbench", "plugins", "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "spiral" in {row["name"] for row in json.loads(done.stdout)}
    assert "hello from the import" in done.stderr


def test_the_same_zoo_behind_the_door_of_installed_packages(tmp_path, monkeypatch, flowbench):
    """Three animals of different kinds as entry points; the rest goes the same way."""
    from importlib.metadata import EntryPoint

    usual = doors.entry_points
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLOWBENCH_PLUGIN_SECONDS", "0.3")
    (tmp_path / "zoo_exits.py").write_text("raise SystemExit(1)")
    (tmp_path / "zoo_hangs.py").write_text("while True:\n    pass")
    more = {
        doors.METHODS: [EntryPoint("exits", "zoo_exits:Method", doors.METHODS)],
        doors.EXTENSIONS: [
            EntryPoint("hangs", "zoo_hangs", doors.EXTENSIONS),
            EntryPoint("absent", "zoo_absent", doors.EXTENSIONS),
        ],
    }
    monkeypatch.setattr(
        doors, "entry_points", lambda group: [*usual(group=group), *more.get(group, [])]
    )
    others_work(flowbench)
    _, output = flowbench("plugins")
    assert "method exits from unknown cannot be imported: SystemExit: 1 (zoo_exits.py:1)" in output
    assert "hangs from unknown took more than 0.3 s" in output
    assert "absent from unknown cannot be read: there is no module zoo_absent" in output


# Those that load, and go wrong in a run: what is stored, and what the message says.
RUNS = {
    "NaN": (without(".square().mean()", ".square().mean() * float('nan')"), 3, "the loss became"),
    "NaN samples": (
        without("return solvers.euler(network", "return float('nan') * solvers.euler(network"),
        3,
        "samples are not finite: 20 of 20 at NFE 1",
    ),
    "wrong shape": (
        without("labels, nfe)", "labels, nfe)[:, :1]").replace(
            "noise, labels, nfe)[:, :1]:", "noise, labels, nfe):"
        ),
        3,
        "samples of my-idea are (24, 1), noise is (24, 2)",
    ),
    "wrong NFE": (
        GOOD.replace("(network, noise, labels, nfe)\n", "(network, noise, labels, nfe + 1)\n"),
        3,
        "my-idea spent 2 evaluations where 1 were asked for: see flowbench check my-idea",
    ),
    "raises": (without("net = nets", "net = 1 / 0 * nets"), 3, "ZeroDivisionError"),
    "no network": (without("return training.fit(", "training.fit("), 3, "returned NoneType"),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_goes_wrong_in_a_run_is_stored_as_what_it_is(name, caged, flowbench):
    source, expected, said = RUNS[name]
    caged(source)
    code, output = flowbench("run", "my-idea", *TINY)
    assert code == expected and said in output and "Traceback" not in output, output
    code, output = flowbench("report")
    word = "diverged" if "NaN" in name else "failed"
    assert code == 0 and word in output and "my-idea" in output, output
    others_work(flowbench, *(HEAVY if name == "NaN" else []))


# Those that run and are wrong all the same: only `check` can tell.
CHECKED = {
    "ignored seed": (
        GOOD.replace(
            "        return solvers.euler(network, noise,",
            "        return solvers.euler(network, torch.randn_like(noise),",
        ),
        "S05",
    ),
    "leaking memory": (
        GOOD.replace(
            "        return solvers.euler(network, noise,",
            "        KEPT.append(torch.randn(1000))\n        return solvers.euler(network, noise,",
        ).replace("@dataclass", "KEPT = []\n\n\n@dataclass"),
        "S11",
    ),
}


@pytest.mark.parametrize("name", CHECKED)
def test_what_runs_and_is_wrong_all_the_same_is_caught_by_a_check(name, caged, flowbench):
    source, check = CHECKED[name]
    caged(source)
    assert flowbench("run", "my-idea", *TINY, "--quiet")[0] == 0
    code, output = flowbench("check", "bad_idea.py", "--only", check, "--json")
    assert code == 6, output
    (checked,) = json.loads(output[: output.rindex("]") + 1])  # then the line on stderr
    assert [(row["id"], row["outcome"]) for row in checked["checks"]] == [(check, "fail")]


def test_the_method_that_they_were_made_of_is_a_good_one(caged, flowbench):
    caged(GOOD)
    ids = ",".join(check for _, check in CHECKED.values())
    code, output = flowbench("check", "bad_idea.py", "--only", ids)
    assert code == 0, output

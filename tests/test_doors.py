"""The three doors: installed packages, loose files, folders; names, states, provenance."""

import json
import subprocess

import pytest
from loose_plugins import GOOD, SPIRAL, TINY, without

from flowbench import discovery, plugins
from flowbench.discovery import provenance, reading
from flowbench.records import FlowbenchError
from flowbench.store import Store

pytestmark = pytest.mark.usefixtures("coarse_likelihood")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(flowbench, *words):
    code, output = flowbench("plugins", "--json", *words)
    assert code == 0, output
    return {(row["kind"], row["name"]): row for row in json.loads(output)}


@pytest.mark.parametrize(
    "name, word",
    [("MeanFlow", "mean-flow"), ("CTM", "ctm"), ("BOTCfm", "bot-cfm"), ("My_Idea2", "my-idea2")],
)
def test_a_class_is_called_as_a_user_would_type_it(name, word):
    assert reading.kebab(name) == word


@pytest.mark.parametrize("door", ["option", "variable", "file", "folder"])
def test_a_loose_file_runs_through_every_door(door, here, flowbench, monkeypatch, database):
    (here / "mine").mkdir()
    path = here / "mine/my_idea.py"
    path.write_text(GOOD)
    words = []
    if door == "option":
        words = ["--plugin", "mine/my_idea.py"]
    elif door == "variable":
        monkeypatch.setenv("FLOWBENCH_PLUGINS", "mine/my_idea.py")
    elif door == "file":
        (here / "flowbench.toml").write_text('[plugins]\npaths = ["mine/my_idea.py"]\n')
    else:
        words = ["--plugin", "mine"]
    row = listed(flowbench, *words)["method", "my-idea"]
    assert (row["state"], row["distribution"], row["file"]) == ("ok", "mine/my_idea.py", str(path))
    code, output = flowbench("run", "my-idea", *TINY, "--quiet", *words)
    assert code == 0, output
    (tried,) = Store.open_existing(f"sqlite:///{database}").tried()
    assert tried.spec.version == "mine/my_idea.py" and len(tried.spec.code) == 64


def test_a_door_is_shut_when_the_command_has_ended(here, flowbench):
    (here / "my_idea.py").write_text(GOOD)
    assert ("method", "my-idea") in listed(flowbench, "--plugin", "my_idea.py")
    assert ("method", "my-idea") not in listed(flowbench)
    code, output = flowbench("run", "my-idea", *TINY)
    assert code == 2 and "no method 'my-idea'" in output


def test_files_of_a_folder_share_what_starts_with_an_underscore(here, flowbench):
    (here / "mine").mkdir()
    (here / "mine/_shared.py").write_text("RATE = 1e-3\n")
    source = without("from dataclasses", "from ._shared import RATE\nfrom dataclasses")
    (here / "mine/idea.py").write_text(source.replace("lr: float = 1e-3", "lr: float = RATE"))
    (here / "mine/data.py").write_text(SPIRAL)
    rows = listed(flowbench, "--plugin", "mine")
    assert rows["method", "my-idea"]["state"] == rows["dataset", "spiral"]["state"] == "ok"
    tiny = ["spiral" if word == "moons" else word for word in TINY]
    code, output = flowbench("run", "my-idea", *tiny, "--plugin", "mine")
    assert code == 0 and "wide" in output, output


def test_the_hash_of_a_folder_sees_every_file_of_it(here):
    def code():
        (plugin,) = [p for p in discovery.from_file(here / "mine") if p.kind == "method"]
        discovery.loading._outcome.cache_clear()
        for name in [n for n in sys.modules if n.startswith("flowbench_folder_")]:
            del sys.modules[name]
        return provenance.code_hash(discovery.load(plugin))

    import sys

    (here / "mine").mkdir()
    (here / "mine/idea.py").write_text(GOOD)
    (here / "mine/_shared.py").write_text("RATE = 1\n")
    first = code()
    (here / "mine/_shared.py").write_text("RATE = 1  # the same\n")
    assert code() == first
    (here / "mine/_shared.py").write_text("RATE = 2\n")
    assert code() != first


def test_two_files_of_one_stem_do_not_meet(here, flowbench):
    for folder, name in (("a", "First"), ("b", "Second")):
        (here / folder).mkdir()
        (here / folder / "idea.py").write_text(GOOD.replace("MyIdea", name))
    rows = listed(flowbench, "--plugin", "a/idea.py", "--plugin", "b/idea.py")
    assert rows["method", "first"]["state"] == rows["method", "second"]["state"] == "ok"


def test_a_name_of_its_own_and_what_is_private(here, flowbench):
    named = "    name: ClassVar[str] = 'better'\n\n    lr: float"
    source = GOOD.replace("    lr: float", named, 1).replace(
        "import torch\n", "import torch\nfrom typing import ClassVar\n"
    )
    heir = "\n\n@dataclass(frozen=True)\nclass Heir(MyIdea):\n    name: ClassVar[str] = 'heir'\n"
    hidden = GOOD[GOOD.index("@dataclass") :].replace("MyIdea", "_Hidden")
    (here / "idea.py").write_text(source + heir + "\n\n" + hidden)
    rows = listed(flowbench, "--plugin", "idea.py", "--kind", "method")
    assert {name for _, name in rows if rows["method", name]["distribution"] == "idea.py"} == {
        "better",
        "heir",
    }
    assert rows["method", "heir"]["state"] == "ok"


def test_two_of_one_name_name_both_and_the_cure(here, flowbench, monkeypatch):
    (here / "cfm.py").write_text(GOOD.replace("MyIdea", "CFM"))
    (here / "digits.py").write_text(SPIRAL.replace('"spiral"', '"digits"'))
    words = ["--plugin", "cfm.py", "--plugin", "digits.py"]
    rows = listed(flowbench, *words)
    for key in (("method", "cfm"), ("dataset", "digits")):
        assert rows[key]["state"] == "shadowed" and "flowbench 0.1.0 and" in rows[key]["why"]
    code, output = flowbench("run", "cfm", *TINY, *words)
    assert code == 2 and "two methods are called cfm: in flowbench 0.1.0 and cfm.py" in output
    assert "FLOWBENCH_DISABLED=cfm.py:cfm" in output and "\n" not in output.strip()
    code, output = flowbench("datasets", "digits", *words)
    assert code == 2 and "two datasets are called digits" in output
    code, output = flowbench("run", "edm", *TINY, *words)
    assert code == 0, "the others work"
    monkeypatch.setenv("FLOWBENCH_DISABLED", "cfm.py:cfm")
    _, output = flowbench("plugins", "--json", *words)
    states = {(r["distribution"], r["state"]) for r in json.loads(output) if r["name"] == "cfm"}
    assert states == {("flowbench", "ok"), ("cfm.py", "disabled")}
    assert flowbench("run", "cfm", *TINY, *words)[0] == 0


def test_what_is_disabled_says_so(here, flowbench, monkeypatch):
    (here / "idea.py").write_text(GOOD)
    (here / "flowbench.toml").write_text('[plugins]\npaths = ["idea.py"]\ndisabled = ["my-idea"]\n')
    assert listed(flowbench)["method", "my-idea"]["state"] == "disabled"
    code, output = flowbench("run", "my-idea", *TINY)
    assert code == 2 and "disabled" in output
    monkeypatch.setenv("FLOWBENCH_DISABLED", "metrics")
    assert not [row for row in listed(flowbench) if row[0] == "metric"]


def test_what_is_needed_and_not_here_is_unavailable_with_the_line_for_pip(here, flowbench):
    need = '    needs: ClassVar = ("click>=7", "no-such-package>=1.0")\n    lr: float'
    source = without("    lr: float", need).replace(
        "import torch\n", "import torch\nimport no_such_package\nfrom typing import ClassVar\n", 1
    )
    (here / "idea.py").write_text(source)
    (here / "more.py").write_text('NEEDS = ("torch>=999",)\n' + SPIRAL)
    words = ["--plugin", "idea.py", "--plugin", "more.py"]
    rows = listed(flowbench, *words)
    row = rows["method", "my-idea"]
    assert row["state"] == "unavailable"
    assert row["why"].endswith("needs what is not here: pip install 'no-such-package>=1.0'")
    assert rows["extension", "more"]["state"] == "unavailable"
    code, output = flowbench("run", "my-idea", *TINY, *words)
    assert code == 2 and "pip install 'no-such-package>=1.0'" in output


@pytest.mark.parametrize(
    "text, message",
    [
        ("[plugins]\npath = []", "has no key path: it has paths and disabled"),
        ("[plugins]\npaths = 'a.py'", "paths takes a list of texts"),
        ("plugins = 3", r"plugins takes a table"),
        ("[plugins", "cannot be read"),
        ("[plugins]\npaths = ['nowhere.py']", "there is no folder or .py file nowhere.py"),
    ],
)
def test_a_wrong_file_is_one_line(text, message, here, flowbench):
    (here / "flowbench.toml").write_text(text)
    code, output = flowbench("methods")
    assert code == 2 and message in output and "Traceback" not in output
    assert flowbench("--help")[0] == 0


def test_a_path_that_is_not_there_is_one_line(here, flowbench):
    (here / "notes.txt").write_text("no plugin")
    for word in ("nowhere.py", "notes.txt", "a:b"):
        code, output = flowbench("plugins", "--plugin", word)
        assert code == 2 and output.strip().count("\n") <= 3 and word in output


def test_the_commit_of_a_plugin_stands_in_its_version(here):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=here, check=True, capture_output=True)

    path = here / "idea.py"
    path.write_text(GOOD)

    def version():
        from flowbench import git as commits

        commits.state.cache_clear()
        (plugin,) = discovery.from_file(path)
        return provenance.version(plugin)

    git("init")
    assert version() == str(path), "not tracked: the repository around it says nothing"
    git("add", "idea.py")
    git("commit", "-m", "first")
    clean = version()
    assert clean.startswith(f"{path}, git ") and not clean.endswith("-dirty")
    path.write_text(GOOD + "\n")
    assert version() == f"{clean}-dirty"


def test_a_third_partys_metric_carries_the_hash_of_its_code(here, flowbench, database):
    (here / "more.py").write_text(SPIRAL)
    words = ["run", "cfm", *TINY, "--plugin", "more.py", "--quiet"]

    def codes():
        discovery.loading._outcome.cache_clear()
        for name in [n for n in sys.modules if n.startswith("flowbench_file_")]:
            del sys.modules[name]
        assert flowbench(*words)[0] == 0
        rows = Store.open_existing(f"sqlite:///{database}").measured()
        return [row.score.protocol.get("metric_code") for row in rows if row.score.name == "wide"]

    import sys

    first = set(codes())
    assert len(first) == 1 and None not in first
    (here / "more.py").write_text(SPIRAL.replace("samples.std()", "samples.std() + 0"))
    assert set(codes()) != first, "it was measured anew"


def test_the_command_of_a_loose_methods_row_names_its_file(here, flowbench):
    (here / "idea.py").write_text(GOOD)
    assert flowbench("run", "my-idea", *TINY, "--plugin", "idea.py")[0] == 0
    _, output = flowbench("show", "moons-my-idea")
    (command,) = [line for line in output.splitlines() if "flowbench run my-idea" in line]
    assert "--plugin idea.py" in command


def test_finding_a_name_that_is_not_there_mentions_files_that_cannot_be_read(here, monkeypatch):
    (here / "idea.py").write_text("def broken(:\n")
    monkeypatch.setenv("FLOWBENCH_PLUGINS", "idea.py")
    with pytest.raises(FlowbenchError, match=r"no method 'my-idea'.*idea.py: SyntaxError.*line 1"):
        plugins.method("my-idea", {})


def test_workers_of_a_suite_go_through_the_same_door(here, flowbench):
    (here / "idea.py").write_text(GOOD)
    (here / "suite.toml").write_text(
        '[suite]\ntitle = "Mine"\ndataset = "moons"\nnfe = [1]\nsteps = 4\nbatch = 8\n'
        'samples = 20\nseeds = [0]\n\n[[method]]\nlabel = "mine"\nmethod = "my-idea"\n'
    )
    code, output = flowbench("run", "--suite", "suite.toml", "--plugin", "idea.py", "--quiet")
    assert code == 0, output
    code, output = flowbench("compare", "--suite", "suite.toml", "--plugin", "idea.py")
    assert code == 0 and "mine" in output, output
    code, output = flowbench("run", "--suite", "suite.toml", "--quiet")
    assert code == 2 and "no method 'my-idea'" in output

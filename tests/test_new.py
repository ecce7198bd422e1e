"""`flowbench new`: packages that are complete and work as they are; nothing is overwritten."""

import ast
import errno
import os
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flowbench import options, plugins, scaffold
from flowbench.records import Budget, FlowbenchError
from flowbench.scaffold import copying

KINDS = ("method", "dataset", "metric")
BUILT_IN = [n for n, p in plugins.methods().items() if p.distribution == "flowbench"]
LONG = "name-that-is-thirty-characters"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to write in, with a space in its path."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def order(kind="method", name="my-thing", origin=None, licence="mit", author=""):
    original = None if origin is None else scaffold.find(origin)
    return scaffold.Order(kind, scaffold.Names(name), licence, author, original)


def project(files):
    return tomllib.loads(files["pyproject.toml"])


def imported(path):
    """The module of a method that was written to `path`."""
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_written_and_says_what_to_type_next(flowbench, here, kind):
    code, output = flowbench("new", kind, "my-thing")
    assert code == 0, output
    head, *lines = output.splitlines()
    assert head == "wrote flowbench-my-thing: 9 files. Next:" and len(lines) == 3
    assert lines[0] == "  pip install -e flowbench-my-thing" and "my-thing" in lines[2]
    found = {str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()}
    module = "src/flowbench_my_thing"
    names = ["pyproject.toml", "README.md", "LICENSE", ".gitignore", "CITATION.cff"]
    names += [".github/workflows/test.yml", f"{module}/__init__.py", f"{module}/{kind}.py"]
    assert found == {f"flowbench-my-thing/{n}" for n in [*names, f"tests/test_{kind}.py"]}
    assert os.listdir(here) == ["flowbench-my-thing"], "nothing else stays"


@pytest.mark.parametrize("kind", KINDS)
def test_every_python_file_compiles_and_every_table_is_read(kind):
    files = scaffold.files(order(kind, author='Ann "A." Lée <ann@x.org>'))
    for path, text in files.items():
        assert "{{" not in text.replace("${{", "") and "{%" not in text, path
        if path.endswith(".py"):
            assert ast.get_docstring(compile(text, path, "exec", ast.PyCF_ONLY_AST))
    assert yaml.safe_load(files[".github/workflows/test.yml"])["jobs"]["test"]["steps"][0]
    assert yaml.safe_load(files["CITATION.cff"])["authors"] == [{"name": 'Ann "A." Lée'}]
    table = project(files)["project"]
    assert table["authors"] == [{"name": 'Ann "A." Lée', "email": "ann@x.org"}]
    group = "flowbench.methods" if kind == "method" else "flowbench.extensions"
    place = f"flowbench_my_thing.{kind}"
    value = f"{place}:MyThing" if kind == "method" else place
    assert table["entry-points"] == {group: {"my-thing": value}}
    assert table["dependencies"] == [], "what PyPI calls flowbench is another project"


@pytest.mark.parametrize(
    "licence, words",
    [
        ("mit", "MIT License"),
        ("apache-2.0", "Version 2.0, January 2004"),
        ("bsd-3-clause", "Neither the name of the copyright holder"),
    ],
)
def test_the_licence_is_the_one_that_was_asked_for(flowbench, here, licence, words):
    code, output = flowbench("new", "method", "mine", "--license", licence, "--author", "Ann Lee")
    assert code == 0, output
    text = Path("flowbench-mine/LICENSE").read_text()
    assert words in text and ("Ann Lee" in text) == (licence != "apache-2.0")
    table = tomllib.loads(Path("flowbench-mine/pyproject.toml").read_text())["project"]
    assert table["license"].lower() == licence


def test_without_a_licence_none_is_named():
    files = scaffold.files(order(licence="none"))
    assert "LICENSE" not in files and "license" not in project(files)["project"]
    assert "icence" not in files["README.md"] and "license" not in files["CITATION.cff"]


def test_what_is_copied_keeps_its_terms():
    for licence, expression in (("mit", "MIT"), ("apache-2.0", "Apache-2.0 AND MIT")):
        files = scaffold.files(order(origin="cfm", licence=licence))
        assert project(files)["project"]["license"] == expression
        kept = (Path(__file__).parent.parent / "LICENSE").read_text()
        assert files["LICENSE-flowbench"] == kept
        head = files["src/flowbench_my_thing/method.py"].splitlines()[:3]
        assert head[0].startswith("# Made from the method cfm of flowbench ")
        assert "LICENSE-flowbench" in head[1] and head[2].startswith("# Copyright (c) 2026 The fl")


def test_a_method_of_unknown_terms_says_so(flowbench, here, monkeypatch):
    place = Path(__file__).parent / "third_party/flowbench_rectified.py"
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(place))
    code, output = flowbench("new", "method", "mine", "--from", "rectified-flow")
    assert code == 0 and "the licence of rectified-flow is not known" in output, output
    head, second, *_ = Path("flowbench-mine/src/flowbench_mine/method.py").read_text().splitlines()
    assert head == f"# Made from the method rectified-flow of {place}."
    assert second == "# Its licence is not known: ask its authors before you publish it."
    assert "ask its authors" in Path("flowbench-mine/README.md").read_text()


@pytest.mark.parametrize(
    "said, written",
    [
        (
            '{"url": "https://x.org/f.git", "vcs_info": {"vcs": "git", "commit_id": "a1"}}',
            "git+https://x.org/f.git@a1",
        ),
        ('{"url": "https://x.org/f.whl", "archive_info": {}}', "https://x.org/f.whl"),
        ('{"url": "file:///home/ann/flowbench", "dir_info": {}}', "${{ vars.FLOWBENCH }}"),
        (None, "${{ vars.FLOWBENCH }}"),
    ],
)
def test_continuous_integration_installs_the_flowbench_that_is_here(monkeypatch, said, written):
    """An address that others can reach is written down; what PyPI has is another project."""
    found = SimpleNamespace(read_text=lambda name: said)
    monkeypatch.setattr("flowbench.scaffold.package.distribution", lambda name: found)
    files = scaffold.files(order())
    workflow = yaml.safe_load(files[".github/workflows/test.yml"])
    assert workflow["env"]["FLOWBENCH"] == written
    assert (f'pip install "{written}"' in files["README.md"]) == ("https" in written)
    installs = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert 'pip install "$FLOWBENCH"' in installs and "pip install flowbench" not in installs


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_of_ours_can_be_started_from(name, tmp_path):
    """Under its new name it has the same options and presets, and trains to the same network."""
    import torch

    from flowbench import meters, presets
    from flowbench.testing import toy, toy_teacher
    from flowbench.training import Run

    wanted = order(origin=name)
    files = scaffold.files(wanted)
    scaffold.write(tmp_path / "new", files)
    compile(files["tests/test_method.py"], name, "exec")
    path = tmp_path / "new/src/flowbench_my_thing/method.py"
    cls, before = imported(path).MyThing, plugins.method_class(name)
    assert options.describe(cls) == options.describe(before)
    theirs = presets.place(name)
    assert not theirs.is_file() or path.with_suffix(".toml").read_text() == theirs.read_text()
    networks = []
    for method in (cls(**wanted.original.small), before(**wanted.original.small)):
        hook = plugins.manager(method, meters).hook
        teacher = toy_teacher() if getattr(method, "teacher", None) else None
        given = {"data": toy("vector"), "run": Run(Budget(2, 16)), "teacher": teacher}
        torch.manual_seed(0)
        networks.append(hook.train(**given, meter={}).state_dict())
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


def test_its_class_and_its_own_name_change_and_nothing_else():
    source = (
        '"""Old é."""\n'
        "from . import beside\n"
        "from .sub.more import (\n    one,\n)\n"
        "class Old:\n"
        '    name = "old"\n'
        '    é = 1; word = "é", Old, "Old"\n'
        '    def f(self, x: "Old") -> "Old":\n'
        '        return f"{Old.name}", "old"  # Old\n'
        "    def teacher(self):\n"
        '        return "old" if self else "older"\n'
    )
    found = copying.renamed(source, ("old", "Old"), ("new-one", "NewOne"), "theirs.inner")
    assert found == (
        '"""Old é."""\n'
        "from theirs.inner import beside\n"
        "from theirs.inner.sub.more import (\n    one,\n)\n"
        "class NewOne:\n"
        '    name = "new-one"\n'
        '    é = 1; word = "é", NewOne, "Old"\n'
        '    def f(self, x: "NewOne") -> "NewOne":\n'
        '        return f"{NewOne.name}", "old"  # Old\n'
        "    def teacher(self):\n"
        '        return "new-one" if self else "older"\n'
    )


@pytest.mark.parametrize(
    "source, words",
    [
        ("from other import Old", "is not written in its module"),
        ("import math as NewOne\nclass Old: ...", "has a NewOne already"),
        ("from . import beside\nclass Old: ...", "imports files beside it"),
    ],
)
def test_a_source_that_cannot_be_renamed_is_refused(source, words):
    with pytest.raises(FlowbenchError, match=words):
        copying.renamed(source, ("old", "Old"), ("new-one", "NewOne"), "")


@pytest.mark.parametrize(
    "name, words",
    [
        ("MyMethod", "try my-method"),
        ("my_method", "try my-method"),
        ("2fast", "try fast"),
        ("-", "try my-method"),
        ("über\x1b[1m", "try ber-1m"),
        ("../up", "try up"),
        (LONG + "s", f"try {LONG}"),
        ("none", "try my-none"),
        ("literal", "try my-literal"),
        ("flowbench-x", "try x"),
        ("cfm", "flowbench new method my-cfm --from cfm"),
        ("plugins", "a package flowbench_plugins is installed already"),
    ],
)
def test_a_bad_name_is_refused_with_a_better_one(flowbench, here, name, words):
    code, output = flowbench("new", "method", "--", name)
    assert code == 2 and words in output and len(output.splitlines()) == 1, output
    assert "\x1b" not in output and not any(here.iterdir())


@pytest.mark.parametrize("kind, name", [("dataset", "moons"), ("metric", "sw2")])
def test_a_name_that_is_taken_is_refused_for_its_own_kind_only(flowbench, here, kind, name):
    code, output = flowbench("new", kind, name)
    assert code == 2 and f"there is a {kind} called {name} already" in output
    assert not any(here.iterdir())
    assert flowbench("new", "method", name)[0] == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--from", "cfn"], "no method 'cfn': did you mean cfm?"),
        (["--author", "Ann\nLee"], "--author takes one line"),
        (["--output", "no/such"], "there is no folder no"),
        (["--output", "."], "is there already"),
    ],
)
def test_other_wrong_words_are_one_line_too(flowbench, here, words, message):
    code, output = flowbench("new", "method", "mine", *words)
    assert code == 2 and message in output and len(output.splitlines()) == 1, output
    assert not any(here.iterdir())


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_is_overwritten(flowbench, here, there):
    target = here / "flowbench-mine"
    if there == "file":
        target.write_text("mine")
    elif there == "folder":
        target.mkdir()
    else:
        target.symlink_to(here / "nowhere")
    code, output = flowbench("new", "method", "mine")
    assert code == 2 and "is there already: name another folder with --output" in output
    assert os.listdir(here) == ["flowbench-mine"] and not list(here.glob("*/*"))
    assert flowbench("new", "method", "mine", "--output", "other")[0] == 0
    assert (here / "other/pyproject.toml").is_file()


@pytest.mark.parametrize(
    "error, code",
    [(OSError(errno.ENOSPC, "No space left"), 3), (PermissionError(errno.EACCES, "Denied"), 2)],
)
def test_a_failure_leaves_nothing_behind(flowbench, here, monkeypatch, error, code):
    write_text, count = Path.write_text, []

    def failing(path, *words, **more):
        count.append(path)
        if len(count) == 4:
            raise error
        return write_text(path, *words, **more)

    monkeypatch.setattr(Path, "write_text", failing)
    found, output = flowbench("new", "method", "mine")
    assert (found, len(output.splitlines())) == (code, 1), output
    assert len(count) == 4 and "cannot be written" in output and not any(here.iterdir())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Packages of every kind, also with the longest name, and copies of every method."""
    folder = tmp_path_factory.mktemp("my packages")
    for kind in KINDS:
        scaffold.write(folder / kind, scaffold.files(order(kind, f"own-{kind}")))
        name = f"{kind}-{LONG}"[:30]
        scaffold.write(folder / f"long {kind}", scaffold.files(order(kind, name)))
    for name in BUILT_IN:
        scaffold.write(folder / f"my {name}", scaffold.files(order("method", f"my-{name}", name)))
    return folder


def call(folder, *words, **variables):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_ruff_finds_nothing_in_them(written):
    for words in (["check"], ["format", "--check"]):
        done = call(written, "ruff", *words, "--no-cache", ".")
        assert done.returncode == 0, done.stdout
    (written / "long method/src/bad.py").write_text("import os\n")
    assert call(written / "long method", "ruff", "check", "--no-cache", ".").returncode == 1
    (written / "long method/src/bad.py").unlink()


@pytest.mark.slow
def test_mypy_finds_nothing_in_them(written, tmp_path):
    for kind in (*KINDS, "my cfm"):
        done = call(written / kind, "mypy", "--cache-dir", str(tmp_path / "cache"))
        assert done.returncode == 0, done.stdout
        assert "no issues found in 3 source files" in done.stdout


@pytest.mark.slow
def test_they_work_untouched(written, tmp_path, flowbench, monkeypatch):
    """Installed, they pass their own tests and the check, run, and stand in the table."""
    site, packages = tmp_path / "site", [*KINDS, "my cfm"]
    quiet = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = call(written, "pip", *quiet, "--target", str(site), *[f"./{p}" for p in packages])
    assert done.returncode == 0, done.stderr
    plain = ["pytest", "-p", "no:cacheprovider"]
    done = call(written / "method", *plain, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout
    # Of the copy no more than that: the contract of cfm is tested as cfm's.
    some = [*plain, "--import-mode=importlib", "-k", "not test_contract or A0", *packages[1:]]
    done = call(written, *some, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout
    monkeypatch.syspath_prepend(site)
    small = ["--steps", "20", "--batch", "32", "--samples", "200", "--nfe", "1,2"]
    for words in (["own-method", "--dataset", "moons"], ["own-method", "--dataset", "own-dataset"]):
        code, output = flowbench("run", *words, *small)
        assert code == 0, output
    code, output = flowbench("compare", "--metric", "own-metric")
    assert code == 0 and output.count("own-method") >= 2, output
    code, output = flowbench("check", "own-method", "--quick")
    assert code == 0, output

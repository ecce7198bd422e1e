"""What could run code of a file is called nowhere, or where it is listed with a reason."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("flowbench", "plugins", "benchmarks")
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.loads", "marshal.loads"),
    *("joblib.load", "dill.loads", "cloudpickle.loads", "shelve.open", "pandas.read_pickle"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"),
    *("subprocess.getoutput", "torch.jit.load", "torch.hub.load", "numpy.fromregex"),
}
METHODS = {"extractall", "unpack_archive", "enable_load_extension", "read_pickle", "exec_module"}
# (file, what is called): why it may be.
ALLOWED = {
    ("flowbench/discovery/loading.py", "spec.loader.exec_module"): "plugins are programs",
    ("flowbench/launchers/node.py", "pickle.loads"): "the job that this user's driver has sent",
    ("flowbench/launchers/post.py", "pickle.loads"): "from a folder of this user alone, mode 0700",
}
# Classes that read pickles: each names what a pickle may ask for, in `find_class`.
READERS = {
    "flowbench/data/batches.py": "CIFAR-10's batches: arrays alone",
    "flowbench/imports/unpickle.py": "EDM's networks: stand-ins alone",
    "flowbench/metrics/reference_containers.py": "EDM2's statistics: arrays alone",
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name with attributes; empty for other expressions."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def known_names(tree: ast.AST) -> dict[str, str]:
    """What the names that a module imports stand for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name.partition(".")[0]: a.name for a in node.names if a.asname}
            found |= {a.name.partition(".")[0]: a.name.partition(".")[0] for a in node.names}
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def keyword(call: ast.Call, name: str) -> object:
    """The constant that a call gives a keyword; None where it gives none."""
    values = [word.value for word in call.keywords if word.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def unsafe(text: str) -> list[str]:
    """What a module calls that could run code which it reads."""
    tree = ast.parse(text)
    names, found = known_names(tree), []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        word = dotted(call.func)
        first, _, rest = word.partition(".")
        name = names.get(first, first) + (f".{rest}" if rest else "")
        last = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        loose = name == "torch.load" and keyword(call, "weights_only") is not True
        loose |= name == "numpy.load" and keyword(call, "allow_pickle") not in (None, False)
        loose |= keyword(call, "shell") is True or keyword(call, "allow_pickle") is True
        if loose or name in NAMES | CALLS | METHODS or last in METHODS:
            found.append(name or last)
    return found


def readers(text: str) -> list[ast.ClassDef]:
    """Classes that read pickles."""
    tree = ast.parse(text)
    names = known_names(tree)

    def base(node: ast.AST) -> str:
        first, _, rest = dotted(node).partition(".")
        return names.get(first, first) + (f".{rest}" if rest else "")

    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [one for one in classes if any(base(b) == "pickle.Unpickler" for b in one.bases)]


FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_nothing_is_called_that_could_run_what_it_reads():
    assert len(FILES) > 100
    found = set()
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        found |= {(name, call) for call in unsafe(path.read_text())}
    assert found == set(ALLOWED)


def test_readers_of_pickles_name_what_they_know():
    found = {path.relative_to(ROOT).as_posix(): readers(path.read_text()) for path in FILES}
    assert {name for name, classes in found.items() if classes} == set(READERS)
    for classes in found.values():
        for one in classes:
            assert "find_class" in {part.name for part in one.body if hasattr(part, "name")}


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch as t\nt.load(path, weights_only=chosen)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pickle\npickle.loads(content)",
        "from pickle import load as read\nread(file)",
        "import pickle\npickle.Unpickler(file).load()",
        "import yaml\nyaml.load(text)",
        "import os\nos.system(word)",
        "import subprocess\nsubprocess.run(word, shell=True)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import zipfile\nwith zipfile.ZipFile(path) as archive:\n    archive.extractall(folder)",
        "import shutil\nshutil.unpack_archive(path)",
        "eval(text)",
        "exec(text)",
        "connection.enable_load_extension(True)",
        "import torch\ntorch.hub.load('a', 'b')",
    ],
)
def test_the_look_finds_what_is_unsafe(text):
    assert unsafe(text)


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "network.eval()",
        "import json\njson.load(file)",
        "import subprocess\nsubprocess.run(['git', 'status'])",
    ],
)
def test_the_look_leaves_what_is_safe(text):
    assert not unsafe(text)

"""The architecture: imports go down, each library has its room, functions and files stay short."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = {
    *["augment", "average", "cache", "checkpoints", "coordinates", "coupling", "data", "download"],
    *["environment", "fitting", "imports", "meters", "metrics", "mixtures", "nets", "noise"],
    *["noise_levels", "options", "pair_files", "pairs", "solvers", "teacher", "training"],
    *[
        "trajectories",
        "journal",
        "trackers",
        "training_log",
        "known_weights",
        "losses",
        "memory",
        "optimizers",
        "places",
        "weights",
    ],
    *["determinism", "pace", "pairwise", "random_states", "ranks", "rows", "sharing", "step"],
    *["timing", "torch_files", "torchrun"],
}
# Rooms of one floor that may build on each other, from the bottom up.
ORDER = [
    *[
        "plans",
        "observation",
        "presets",
        "resolution",
        "setting",
        "network_files",
        "datasets",
        "planning",
    ],
    *["sampling", "protocol", "examination", "runner", "short_run"],
    *["rehearsal", "smoke", "profiling", "blame", "comparison", "command_line"],
    *[
        "suitefile",
        "suites",
        "verdicts",
        "report",
        "history",
        "estimate",
        "heartbeat",
        "following",
        "execution",
        "agenda",
        "division",
        "engines",
        "processes",
        "launchers",
        "workers",
    ],
    *["bundle", "explanation", "stages", "reproduction", "notebook", "scaffold", "testing"],
]
FLOORS = [
    {"records", "hookspecs", "process_table"},
    {"entries", "events", "git", "disk", "faults", "interruption", "limits", "offline"}
    | {"part_files", "toml_files"},
    LIBRARY | {"discovery", "plugins", "store"},
    set(ORDER),
    {"cli"},
]
BESIDE = {("options", "discovery"), ("options", "plugins"), ("discovery", "plugins")}
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
ROOMS = {
    "torch": LIBRARY
    | {"sampling", "examination", "runner", "execution", "testing", "network_files"}
    | {"reproduction", "short_run", "rehearsal", "profiling", "estimate", "observation"},
    "pluggy": {"hookspecs", "plugins"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "click": {"cli"},
    "pydantic": {"options", "presets", "suitefile", "suites"},
    "multiprocessing": {"processes"},
    "submitit": {"launchers"},
    "ray": {"launchers"},
    "rich": {"cli", "report"},
    "matplotlib": {"report"},
    "altair": {"report"},
    "vl_convert": {"report"},
    "jinja2": {"report", "scaffold"},
    "markupsafe": {"report"},
    "pandas": {"notebook"},
    "packaging": {"discovery"},
    "tensorboard": {"trackers"},
    "wandb": {"trackers"},
    "mlflow": {"trackers"},
}
# Longer than the limit, each with its reason.
LONG_FUNCTIONS = {
    "metrics": "the catalogue: a list, one entry after another",
    "datasets": "the catalogue: a list, one entry after another",
    "batches": "the iterator: restore, draw, look and save in one place",
    "fit": "its signature names every setting",
    "sigma_heun": "its signature and the algorithm, as the paper prints it",
    "upgrade": "the first migration: a list of tables",
}
LONG_FILES: dict[str, str] = {}


def modules(folder):
    return sorted(p for p in (ROOT / folder).rglob("*.py"))


def name_of(path):
    """The room that a file of flowbench belongs to."""
    return path.relative_to(ROOT / "flowbench").parts[0].removesuffix(".py")


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(tree, room):
    """What a module of `room` imports against the rules."""
    for name in imports(tree):
        top, *rest = name.split(".")
        if room not in ROOMS.get(top, {room}):
            yield f"{room} imports {top}"
        if top == "flowbench" and rest[0] in FLOOR and not allowed(rest[0], room):
            yield f"{room} imports {rest[0]}"


def allowed(other, room):
    if other == room or {other, room} <= LIBRARY or FLOOR[other] < FLOOR[room]:
        return True
    if (other, room) in BESIDE:
        return True
    return {other, room} <= set(ORDER) and ORDER.index(other) < ORDER.index(room)


FRAMEWORK = [p for p in modules("flowbench") if p.stem not in ("__main__",)]


@pytest.mark.parametrize("path", FRAMEWORK, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_and_libraries_stay_in_their_room(path):
    if name_of(path) == "__init__":
        return
    assert name_of(path) in FLOOR, f"{path} is on no floor"
    assert list(violations(ast.parse(path.read_text()), name_of(path))) == []


@pytest.mark.parametrize("path", modules("plugins"), ids=lambda p: p.stem)
def test_methods_stand_on_the_library_only(path):
    for name in imports(ast.parse(path.read_text())):
        top, *rest = name.split(".")
        assert top != "flowbench_plugins", "methods never import each other"
        if top == "flowbench":
            assert rest[0] in LIBRARY | {"hookimpl", "FlowbenchError"}, name


@pytest.mark.parametrize(
    "code, room",
    [
        ("import torch", "records"),
        ("from sqlalchemy import select", "runner"),
        ("from flowbench import runner", "store"),
        ("from flowbench.cli import words", "report"),
        ("import pluggy", "cli"),
        ("from flowbench import runner", "planning"),
    ],
)
def test_the_rules_catch_a_wrong_import(code, room):
    assert list(violations(ast.parse(code), room))


def functions():
    for path in modules("flowbench") + modules("plugins"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path, node.name, node.end_lineno - node.lineno + 1


def test_functions_are_short():
    lengths = [length for _, _, length in functions()]
    assert statistics.median(lengths) < 12
    long = [f"{p.name}: {name} has {n} lines" for p, name, n in functions() if n > 30]
    assert [line for line in long if line.split(": ")[1].split()[0] not in LONG_FUNCTIONS] == []


def test_files_are_short():
    for path in modules("flowbench") + modules("plugins"):
        assert len(path.read_text().splitlines()) <= 250 or path.name in LONG_FILES, path


def test_every_module_says_what_it_owns():
    for path in modules("flowbench") + modules("plugins"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_every_name_in_all_resolves():
    import importlib

    for path in modules("flowbench"):
        if path.name == "__init__.py":
            parts = path.relative_to(ROOT).parent.parts
            module = importlib.import_module(".".join(parts))
            for name in getattr(module, "__all__", []):
                assert hasattr(module, name), f"{module.__name__}.{name}"

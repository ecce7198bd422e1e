"""Finding and describing plugins: names, options, code hashes, broken ones."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Literal

import pluggy
import pytest

from flowbench import hookimpl, options, plugins
from flowbench.discovery import doors, listing, loading
from flowbench.records import FlowbenchError, PluginWarning


@dataclass(frozen=True)
class Example:
    """One line.

    More lines.
    """

    rate: float = 0.5  # how fast: a comment with a colon
    kind: Literal["a", "b"] = "a"
    many: tuple[int, ...] = (1, 2)  # several
    maybe: int | None = None
    flag: bool = False


def test_options_are_described_by_their_fields_and_comments():
    described = {option.name: option for option in options.describe(Example)}
    assert described["rate"].help == "how fast: a comment with a colon"
    assert (described["kind"].type, described["kind"].help) == ("a | b", "")
    assert described["many"].type == "ints with commas"
    assert described["maybe"].type == "int or none"


@pytest.mark.parametrize(
    "word, value",
    [
        ({"rate": "1e-3"}, 1e-3),
        ({"kind": "b"}, "b"),
        ({"many": "3,4,5"}, (3, 4, 5)),
        ({"many": ""}, ()),
        ({"maybe": "none"}, None),
        ({"maybe": "7"}, 7),
        ({"flag": "true"}, True),
    ],
)
def test_words_become_values(word, value):
    assert list(options.parse("example", Example, word).values()) == [value]


@pytest.mark.parametrize(
    "word, message",
    [
        ({"rat": "1"}, "did you mean rate?"),
        ({"zzzz": "1"}, "there are rate, kind, many, maybe, flag"),
        ({"rate": "inf"}, "must be finite"),
        ({"kind": "c"}, r"takes a \| b, not 'c'"),
        ({"many": "1,x"}, "ints with commas"),
    ],
)
def test_wrong_words_are_one_line(word, message):
    with pytest.raises(FlowbenchError, match=message) as caught:
        options.parse("example", Example, word)
    assert "\n" not in str(caught.value)


def points(monkeypatch, **groups):
    def entry_points(group):
        return groups.get(group.removeprefix("flowbench."), [])

    monkeypatch.setattr(doors, "entry_points", entry_points)


def test_two_methods_of_one_name_are_an_error_that_names_both(monkeypatch):
    first = EntryPoint("same", "json:JSONDecoder", doors.METHODS)
    second = EntryPoint("same", "json:JSONEncoder", doors.METHODS)
    points(monkeypatch, methods=[first, second])
    assert plugins.methods()["same"].attribute in ("JSONDecoder", "JSONEncoder"), "it is listed"
    assert [row.state for row in listing.rows()] == ["shadowed", "shadowed"]
    with pytest.raises(FlowbenchError, match="two methods are called same"):
        plugins.method("same", {})


def test_a_broken_extension_is_reported_and_the_others_work(monkeypatch):
    good = EntryPoint("good", "flowbench.data", doors.EXTENSIONS)
    bad = EntryPoint("bad", "no_such_module", doors.EXTENSIONS)
    points(monkeypatch, extensions=[bad, good])
    with pytest.warns(PluginWarning, match="bad from unknown cannot be read: there is no module"):
        modules = plugins.extensions()
    assert [module.__name__ for module in modules] == ["flowbench.data"]
    assert [row.name for row in listing.rows() if row.state != "ok"] == ["bad"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit('no gpu')",
        "from flowbench import hookimpl\n@hookimpl\ndef datasets(): raise RuntimeError('boom')",
        "from flowbench import hookimpl\n@hookimpl\ndef metrics(): return ['no metric']",
        "from flowbench import hookimpl\n@hookimpl\ndef datasets(): return None + 1",
    ],
)
def test_an_extension_that_misbehaves_is_left_out(monkeypatch, tmp_path, code):
    import sys

    (tmp_path / "misbehaved.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("misbehaved", None)
    good = EntryPoint("good", "flowbench.data", doors.EXTENSIONS)
    bad = EntryPoint("bad", "misbehaved", doors.EXTENSIONS)
    points(monkeypatch, extensions=[bad, good])
    loading._outcome.cache_clear()
    with pytest.warns(PluginWarning, match="extension bad from unknown"):
        assert "flowbench.data" in [module.__name__ for module in plugins.extensions()]
    assert [row.name for row in listing.rows() if row.state != "ok"] == ["bad"]
    assert "digits" in [row.name for row in listing.rows()]


@dataclass(frozen=True)
class Picky:
    k: int = 1

    def __post_init__(self):
        if self.k < 1:
            raise ValueError("k is at least 1")

    @hookimpl
    def train(self, data, run): ...

    @hookimpl
    def sample(self, network, noise): ...


def test_a_method_may_refuse_options_with_a_plain_exception(monkeypatch):
    points(monkeypatch, methods=[EntryPoint("picky", f"{__name__}:Picky", doors.METHODS)])
    with pytest.raises(FlowbenchError, match="picky does not take these options: k is at least 1"):
        plugins.method("picky", {"k": "0"})


def test_a_misspelt_hook_or_argument_fails_at_once():
    class Typo:
        @hookimpl
        def trian(self, data): ...

    class Argument:
        @hookimpl
        def train(self, dataset): ...

    for wrong in (Typo(), Argument()):
        with pytest.raises(pluggy.PluginValidationError):
            plugins.manager(wrong)


def test_what_is_no_dataclass_is_refused(monkeypatch):
    points(monkeypatch, methods=[EntryPoint("odd", "json:JSONDecoder", doors.METHODS)])
    with pytest.raises(FlowbenchError, match="is not a frozen dataclass"):
        plugins.method("odd", {})


SOURCE = '''"""Module."""
class Method:
    """Doc."""
    def train(self):
        """Doc."""
        return 1  # comment
'''


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """The code hash of a method after its files were written."""
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, **files):
        for file, text in files.items():
            path = tmp_path / name.partition(".")[0] if "." in name else tmp_path
            path.mkdir(exist_ok=True)
            (path / f"{file}.py").write_text(text)
        importlib.invalidate_caches()
        for loaded in [m for m in sys.modules if m.split(".")[0] == name.split(".")[0]]:
            del sys.modules[loaded]
        return plugins.code_hash(importlib.import_module(name).Method)

    return write


def test_the_code_hash_ignores_comments_and_docstrings_only(hashed):
    first = hashed("lonely", lonely=SOURCE)
    assert (
        hashed("lonely", lonely=SOURCE.replace("comment", "other").replace("Doc", "New")) == first
    )
    assert hashed("lonely", lonely=SOURCE.replace("return 1", "return 2")) != first


def test_the_code_hash_sees_every_file_of_a_package(hashed):
    files = {"__init__": "", "main": SOURCE, "helper": "x = 1\n"}
    first = hashed("pack.main", **files)
    assert hashed("pack.main", **files | {"helper": "x = 1  # the same\n"}) == first
    assert hashed("pack.main", **files | {"helper": "x = 2\n"}) != first


def test_summaries_are_read_without_importing():
    import sys

    sys.modules.pop("flowbench_plugins.lmm", None)
    assert plugins.summary(plugins.methods()["lmm"]).startswith("Predict the end")
    assert "flowbench_plugins.lmm" not in sys.modules

"""What the guides say is what the code does."""

import inspect
import re
import tomllib
from importlib.util import module_from_spec, spec_from_file_location

import guides
import pytest
from click.testing import CliRunner

from flowbench import hookspecs, plugins
from flowbench.cli import cli

ROOT = guides.ROOT
README, GUIDE = guides.read("README.md"), guides.read("plugins/README.md")
PROTOCOLS = guides.read("benchmarks/README.md")
GUIDES = (README, GUIDE, guides.read("CONTRIBUTING.md"))


def test_the_reference_of_hooks_is_complete():
    names = [name for name, hook in vars(hookspecs).items() if hasattr(hook, "flowbench_spec")]
    assert len(names) == 9
    for name in names:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        assert f"#### `{name}({arguments})`" in GUIDE
        assert getattr(hookspecs, name).__doc__


def test_every_method_data_set_and_metric_stands_in_a_guide():
    assert all(f"`{name}`" in README for name in plugins.datasets())
    ours = [n for n, point in plugins.methods().items() if point.distribution == "flowbench"]
    assert all(f"| `{name}` |" in README for name in ours)
    for metric in plugins.metrics():
        assert metric.name in PROTOCOLS, metric.name


def test_every_command_stands_in_a_guide():
    lines = [command.text for text in GUIDES for command in guides.commands(text)]
    named = {guides.split(line)[1][1] for line in lines}
    named = {word for word in named if not word.startswith("-")}
    assert named == set(cli.list_commands(None))
    for name in cli.list_commands(None):
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0 and len(result.output) > 100


def test_every_option_of_the_readme_is_one():
    asked = [[], *([name] for name in cli.list_commands(None))]
    asked += [["db", name] for name in cli.get_command(None, "db").list_commands(None)]
    helps = [CliRunner().invoke(cli, [*words, "--help"]).output for words in asked]
    helps.append((ROOT / "tests/crash/__main__.py").read_text())  # a command of its own
    from torch.distributed.run import get_args_parser

    helps.append(get_args_parser().format_help())
    for option in set(re.findall(r"(?<![\w|-])--[a-z][a-z-]+", README)):
        assert any(option in text for text in helps), option


def test_the_exit_codes_are_those_of_the_help_text():
    from flowbench.cli import EPILOG

    for code in re.findall(r"^  (\d) ", EPILOG, re.M):
        assert re.search(rf"\b{code} ", README.partition("Exit codes:")[2].partition("##")[0])


def test_the_suite_of_the_guide_is_one(tmp_path):
    from flowbench import suites
    from flowbench.suitefile import Expectation, Head, Row, Token

    text = re.search(r"```toml\n(.*?)```", PROTOCOLS, re.S).group(1)
    path = tmp_path / "suite.toml"
    path.write_text(text)
    suite = suites.read(path)
    assert len(suite.cells()) == 6 and len(suite.expectations) == 3
    for table in (Head, Row, Expectation, Token):
        for key in table.model_fields:
            assert re.search(rf"\b{key}\b", text) or key in ("datasets",), key


@pytest.fixture(scope="module")
def readme():
    """The program that writes blocks of the guides."""
    spec = spec_from_file_location("readme", ROOT / "benchmarks/readme.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_blocks_of_the_guide_are_what_they_are_made_of(readme):
    found = readme.written(GUIDE)
    assert found == GUIDE, "make readme"
    for old, new in (
        ("Learn from `data` through", "Learn of `data` through"),
        ("#### `sample(network, noise", "#### `sample(noise, network"),
        ("S04  it spends", "S04  it may spend"),
        ('"""An observer that is always on', '"""An observer that is on'),
    ):
        assert old in GUIDE
        assert readme.written(GUIDE.replace(old, new)) == GUIDE, "a word that was changed by hand"


@pytest.mark.slow
def test_the_tables_of_the_readme_are_what_their_commands_print(readme):
    found = readme.written(README)
    assert found == README, "make readme"
    assert len(readme.BLOCK.findall(README)) == 6
    short = README[README.index("<!-- table 2 of") : README.index("## Methods")]
    bad = short.replace("| tie |", "| better |", 1)
    assert bad != short and readme.written(bad) == short, "a word that was changed by hand"


def test_the_table_of_rooms_names_every_room():
    table = README[README.index("## Where things live") :]
    rooms = {path.name for path in (ROOT / "flowbench").iterdir() if not path.name.startswith("_")}
    missing = [room for room in rooms - {"py.typed"} if not re.search(rf"[`/]{room}[`/]", table)]
    assert missing == []
    named = set(re.findall(r"(\w+\.py)`", table))
    assert named - {path.name for path in (ROOT / "flowbench").glob("*.py")} == {"test_floors.py"}


def named_tests(text):
    """Tests that a table names, as paths below tests/."""
    return re.findall(r"`((?:\w+/)*\w+\.py)(?:::(\w+))?`", text)


def test_every_test_that_a_promise_names_is_there():
    promises = README[README.index("## What flowbench guarantees") :].partition("## Where")[0]
    found = named_tests(promises) + named_tests(guides.read("SECURITY.md"))
    assert len(found) > 40
    for path, name in found:
        text = (ROOT / "tests" / path).read_text()
        assert not name or f"def {name}(" in text, f"{path}::{name}"
    assert named_tests("`a/test_b.py::test_c` and `d.py`") == [
        ("a/test_b.py", "test_c"),
        ("d.py", ""),
    ]


def test_links_between_guides_lead_somewhere():
    for name in ("README.md", "plugins/README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        text = guides.read(name)
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_the_citation_is_of_the_form_of_its_version():
    yaml = pytest.importorskip("yaml")  # comes with a tracker
    citation = yaml.safe_load(guides.read("CITATION.cff"))
    project = tomllib.loads(guides.read("pyproject.toml"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    known = {"name", "family-names", "given-names", "orcid", "affiliation"}
    assert citation["authors"] and all(author.keys() <= known for author in citation["authors"])
    allowed = {"cff-version", "message", "type", "title", "abstract", "authors", "version"}
    assert citation.keys() <= allowed | {"license", "keywords", "repository-code", "url"}

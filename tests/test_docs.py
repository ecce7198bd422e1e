"""What the guides say is what the code does."""

import inspect
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowbench import hookspecs, plugins

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "plugins/README.md").read_text()
PROTOCOLS = (ROOT / "benchmarks/README.md").read_text()


def test_the_example_of_the_guide_is_the_package_that_is_tested():
    code = re.search(r"```python\n(.*?)```", GUIDE, re.S).group(1)
    assert code == (ROOT / "tests/third_party/flowbench_rectified.py").read_text()


@pytest.mark.parametrize("hook", ["train", "sample", "velocity", "measure", "datasets", "metrics"])
def test_every_hook_stands_in_the_guide_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in GUIDE
    assert getattr(hookspecs, hook).__doc__


def test_every_method_data_set_and_metric_stands_in_a_guide():
    assert all(f"`{name}`" in README for name in plugins.datasets())
    ours = [n for n, point in plugins.methods().items() if point.dist.name == "flowbench"]
    assert all(f"| `{name}` |" in README for name in ours)
    for metric in plugins.metrics():
        assert metric.name in PROTOCOLS, metric.name


def test_every_command_of_the_readme_is_one():
    from flowbench.cli import cli

    named = set(re.findall(r"^flowbench (\w+)", README, re.M))
    assert named == set(cli.list_commands(None)) - {"datasets"}
    for name in cli.list_commands(None):
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0 and len(result.output) > 100


def test_every_option_of_the_readme_is_one():
    from flowbench.cli import cli

    helps = [CliRunner().invoke(cli, [n, "--help"]).output for n in cli.list_commands(None)]
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


@pytest.mark.slow
def test_the_tables_of_the_readme_are_what_their_commands_print():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("readme", ROOT / "benchmarks/readme.py")
    readme = module_from_spec(spec)
    spec.loader.exec_module(readme)
    found = readme.written(README)
    assert found == README, "make readme"
    assert len(readme.BLOCK.findall(README)) == 3
    short = README[README.index("<!-- table 2 of") : README.index("## Methods")]
    bad = short.replace("| tie |", "| better |", 1)
    assert bad != short and readme.written(bad) == short, "a word that was changed by hand"

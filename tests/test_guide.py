"""The author's guide: each block of code and each command on the page is run."""

import ast
import subprocess
import sys
import tomllib

import guides
import pytest
from click.testing import CliRunner
from small_catalogue import shrink

from flowbench import presets

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

TEXT = guides.read("plugins/README.md")
FILES = {block.file: block for block in guides.blocks(TEXT) if block.file}
METHODS = {"tiny.py", "written_out.py", "two_stages.py"}
CHECKED = "the metadata of one of flowbench's own; tests/test_methods.py carries out the list"
SOURCE = "flowbench-my-method/src/flowbench_my_method/method.py"
NOT_INSTALLED = "tests/test_new.py installs it; here its module is a loose file"
EXCEPTIONS = guides.Exceptions(
    added={"flowbench check NAME": ("--only A", CHECKED)},
    changed={
        "flowbench check my-method": ("my-method", f"{SOURCE} --only A", NOT_INSTALLED),
        "flowbench run my-method --dataset moons": (
            "moons",
            f"moons --plugin {SOURCE}",
            NOT_INSTALLED,
        ),
    },
    others={"pip install -e flowbench-my-method": NOT_INSTALLED},
    stands_for={"NAME": "cfm", "RUN": "ring-cfm"},
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files of the guide."""
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)
    presets.of.cache_clear()
    (tmp_path / "more").mkdir()
    for name, block in FILES.items():
        if name not in ("flowbench.toml", "pyproject.toml"):
            (tmp_path / name).write_text(block.text)
    yield tmp_path
    presets.of.cache_clear()


def call(words, variables):
    from flowbench.cli import cli

    result = CliRunner().invoke(cli, words, env=variables)
    return result.exit_code, result.output


@pytest.mark.slow
def test_every_command_of_the_guide_runs(place):
    assert EXCEPTIONS.stale(TEXT) == []
    assert "\n".join(guides.carried_out(TEXT, EXCEPTIONS, call)) == ""
    assert (place / "numbers.tsv").read_text().startswith("dataset\t")
    assert list(place.glob("runs/*/loss.csv")) and (place / "flowbench-my-method").is_dir()


def test_every_block_is_of_a_kind_that_is_run():
    for block in guides.blocks(TEXT):
        assert block.language in guides.LANGUAGES, block.line
        if block.language in ("python", "toml"):
            assert block.file, f"line {block.line}: a block without a file's name is not run"
    assert set(FILES) >= METHODS | {"curve.py", "test_tiny.py", "flowbench.toml", "tiny.toml"}


def test_a_method_is_ten_lines_beside_what_its_parts_are_called():
    tree = ast.parse(FILES["tiny.py"].text)
    (cls,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    lines = FILES["tiny.py"].text.splitlines()[cls.body[0].end_lineno : cls.end_lineno]
    code = [line for line in lines if line.strip() and not line.strip().startswith(("def", "@"))]
    assert len(code) <= 10


@pytest.mark.parametrize("door", ["flowbench.toml", "python"])
def test_the_files_of_the_guide_are_found(door, place, flowbench):
    if door == "flowbench.toml":
        (place / door).write_text(FILES[door].text)
        code, output = flowbench("methods")
        assert code == 0 and "tiny " in output and "written-out" not in output
    for name in [n for n in FILES if n.endswith(".py") and not n.startswith("test_")]:
        code, output = flowbench("plugins", "--plugin", name, "--json")
        assert code == 0 and '"broken"' not in output, output
        assert f'"distribution": "{name}"' in output


def test_the_package_of_the_guide_is_the_one_that_is_installed():
    shown = tomllib.loads(FILES["pyproject.toml"].text)["project"]
    real = tomllib.loads(guides.read("tests/third_party/pyproject.toml"))["project"]
    assert (shown["name"], shown["version"]) == (real["name"], real["version"])
    for group, points in shown["entry-points"].items():
        assert points.items() <= real["entry-points"][group].items()


@pytest.mark.slow
def test_the_contract_of_the_guide_is_found_and_kept(place):
    words = ["-m", "pytest", "-q", "test_tiny.py", "-k", "A0", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "text, problem",
    [
        ("```\nflowbench methods --no-such\n```\n", "flowbench methods --no-such: exit code 2"),
        ("Try `flowbench no-such-command` now.", "flowbench no-such-command: exit code 2"),
        ("```\nflowbench methods cfm   # exit code 2\n```\n", "flowbench methods cfm: exit code 0"),
        ("```\nmake no-such\n```\n", "in no table of exceptions: make no-such"),
        ("`flowbench data download cifar10 --no-such`", "no option --no-such"),
    ],
)
def test_a_wrong_command_is_caught(text, problem, place):
    skipped = {"flowbench data download cifar10 --no-such": "a download"}
    (found,) = guides.carried_out(text, guides.Exceptions(skipped=skipped), call)
    assert problem in found


def test_what_is_said_no_more_is_no_exception():
    exceptions = guides.Exceptions(added={"flowbench methods": ("--help", "")})
    assert exceptions.stale("no command") == ["flowbench methods"]
    assert exceptions.stale("`flowbench methods`") == []


def test_a_broken_block_is_caught(place, flowbench):
    (place / "tiny.py").write_text(FILES["tiny.py"].text.replace("def loss(x, y):", "def loss(x"))
    _, output = flowbench("plugins", "--plugin", "tiny.py", "--json")
    assert '"broken"' in output

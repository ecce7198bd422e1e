"""A wheel carries what the checkout has: methods, weights, migrations."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, in a path with a space."""
    folder = tmp_path_factory.mktemp("a wheel")
    names = ["flowbench", "plugins", "pyproject.toml", "README.md", "LICENSE"]
    for name in names:
        source = ROOT / name
        skip = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=skip)
        else:
            shutil.copy(source, folder / "source" / name)
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", *words, "-w", str(folder), str(folder / "source")]
    subprocess.run(pip, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_it_has_every_module_and_the_classifier(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (("flowbench", "flowbench"), ("plugins", "flowbench_plugins")):
        found = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.j2")]
        for path in [*found, *(ROOT / folder).glob("*.toml")]:
            assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in inside
    assert "flowbench/metrics/digits.safetensors" in inside and "flowbench/py.typed" in inside
    assert not any(name.startswith(("plugins/", "tests/")) for name in inside)


def test_it_runs_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    words = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import flowbench; assert flowbench.__file__.startswith(sys.path[0]), flowbench.__file__\n"
        "sys.argv = ['flowbench', 'run', 'cfm', '--dataset', 'digits', '--steps', '5',"
        " '--samples', '20', '--nfe', '1']\n"
        "from flowbench.cli import main; main()"
    )
    environment = os.environ | {"FLOWBENCH_DB": str(tmp_path / "r.db")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "fd-clf" in done.stdout

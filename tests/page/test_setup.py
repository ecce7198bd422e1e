"""What `make test` installs first, with commands that only note what they were asked."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "setup.sh"
SLURM = ("slurmctld", "slurmd", "munged", "sbatch")
ALL = "chromium texlive-latex-base texlive-latex-recommended slurmctld slurmd slurm-client munge"


@pytest.fixture
def installed(tmp_path):
    """Run the script where only the given commands exist: (output, calls of apt-get)."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    (folder / "tail").symlink_to(str(shutil.which("tail")))

    def call(**commands):
        for name, body in commands.items():
            file = folder / name.replace("_", "-")
            file.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
            file.chmod(0o755)
        words = ["/bin/sh", str(SCRIPT)]
        done = subprocess.run(
            words, env={"PATH": str(folder)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 and done.stderr == ""
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done.stdout, [line for line in lines if line.startswith(("update", "install"))]

    return call


def test_where_all_is_there_nothing_is_installed(installed):
    named = ("chromium", "pdflatex", "kpsewhich", "apt_get", *SLURM)
    ready = {name: "exit 0" for name in named}
    assert installed(**ready, id="echo 0") == ("", [])


def test_root_installs_what_is_missing(installed):
    said, calls = installed(id="echo 0", apt_get="exit 0", chromium="exit 0")
    assert said == "" and len(calls) == 2
    assert calls[1].endswith("--no-install-recommends " + ALL.partition(" ")[2])


def test_others_are_told_in_one_line(installed):
    said, calls = installed(id="echo 1000", apt_get="exit 0")
    assert said == f"tests that need these are skipped, which root can apt-get install: {ALL}\n"
    assert calls == []


def test_without_a_network_one_line_says_why(installed):
    said, _ = installed(id="echo 0", apt_get="echo first; echo E: no network; exit 100")
    assert said == f"not installed, so tests are skipped: {ALL} (E: no network)\n"

"""Secrets: whatever runs or fails, no byte of them is in an output, a database or a file."""

import pytest
from loose_plugins import GOOD

from flowbench import download
from flowbench.records import FlowbenchError

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

CANARY = "c4n4ry-0b5e"
NAMES = (
    *("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "PGPASSWORD"),
    *("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "DATABASE_URL", "ANY_OTHER_SECRET"),
)
SIZE = ("--dataset", "moons", "--steps", "2", "--batch", "4", "--samples", "20", "--nfe", "1")
ODD = f"postgresql://me:{CANARY}@127.0.0.1:port/results"
SERVER = f"postgresql://me:{CANARY}@127.0.0.1:1/results"
TOKEN = f"postgresql://me@127.0.0.1:1/results?password={CANARY}&sslpassword={CANARY}"


@pytest.fixture
def guarded(monkeypatch, tmp_path):
    """Secrets in the environment; afterwards none is in any file below the folder."""
    for name in NAMES:
        monkeypatch.setenv(name, f"{name.lower()}-{CANARY}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{CANARY}@127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    looked = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in looked if CANARY.encode() in path.read_bytes()] == []


def test_the_environment_is_in_nothing_that_is_kept(flowbench, guarded):
    broken = GOOD.replace("return solvers", "raise RuntimeError('no luck')\n        return solvers")
    (guarded / "mine.py").write_text(broken)
    said = [
        flowbench("run", "cfm", *SIZE),
        flowbench("run", "my-idea", *SIZE, "--plugin", "mine.py"),
        flowbench("run", "nobody", *SIZE),
        flowbench("compare"),
        flowbench("report", "--output", "x.html", "--no-pictures"),
        flowbench("show", "1", "--packages"),
        flowbench("doctor"),
        flowbench("export", "--bundle", "x.zip", "--no-artifacts"),
    ]
    assert [code for code, _ in said] == [0, 3, 2, 0, 0, 0, 0, 0], said
    assert not [output for _, output in said if CANARY in output]
    assert (guarded / "x.html").exists() and list(guarded.rglob("*.error.log"))


@pytest.mark.parametrize("url", [SERVER, TOKEN, SERVER + "?nonsense=1", ODD])
@pytest.mark.parametrize(
    "words",
    [
        ("compare",),
        ("show", "x"),
        ("doctor",),
        ("report",),
        ("run", "cfm", *SIZE),
        ("why", "cfm", *SIZE),
        ("export", "--bundle", "x.zip"),
        ("reproduce", "x"),
    ],
    ids=lambda words: words[0],
)
def test_the_password_of_a_database_is_not_told(flowbench, guarded, url, words):
    code, output = flowbench(*words, "--db", url)
    assert code in (2, 3) and CANARY not in output and "Traceback" not in output


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{CANARY}@example.org/x",
        f"ftp://{CANARY}@example.org/x",
        f"https://me:{CANARY}@127.0.0.1:1/x?token={CANARY}#{CANARY}",
    ],
)
def test_the_password_of_a_download_is_not_told(guarded, url):
    with pytest.raises(FlowbenchError) as raised:
        download.fetch(url, guarded / "x", "0" * 64)
    assert CANARY not in str(raised.value) and "/x" in str(raised.value)


def test_the_look_finds_a_secret(tmp_path):
    """What the fixture looks for is found where it is."""
    (tmp_path / "log").write_text(f"key={CANARY}")
    assert [p for p in tmp_path.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]

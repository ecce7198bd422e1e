"""The network: with --offline nothing connects, and without it only what is meant to download."""

import os
import socket
import subprocess
import sys

import pytest
import requests
from loose_plugins import GOOD

from flowbench import download, offline
from flowbench.records import Absent

HEARD: list[tuple[str, str]] = []
STATE = {"installed": False, "on": False}
RUN = ("run", "cfm", "--dataset", "moons", "--steps", "4", "--batch", "8", "--samples", "20")


def _record(event, arguments):
    if STATE["on"] and event in offline.PLACES:
        place = arguments[offline.PLACES[event]]
        if not (event == "socket.connect" and isinstance(place, str | bytes)):
            HEARD.append((event, str(place)))


@pytest.fixture
def heard():
    """Every connection that was tried meanwhile, but those within the file system."""
    if not STATE["installed"]:
        sys.addaudithook(_record)
        STATE["installed"] = True
    HEARD.clear()
    STATE["on"] = True
    yield HEARD
    STATE["on"] = False


@pytest.fixture
def server():
    """A port of this machine at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def closed(monkeypatch):
    """Connections are forbidden meanwhile."""
    for name in (offline.VARIABLE, *offline.OTHERS):
        monkeypatch.setenv(name, "")
    offline.begin()


def test_nothing_connects_that_is_not_asked_to(flowbench, heard, database, tmp_path):
    for words in (
        (*RUN, "--nfe", "1"),
        ("compare",),
        ("report", "--format", "html", "--output", str(tmp_path / "x.html")),
        ("report", "--format", "csv"),
        ("data", "list"),
        ("show", "1"),
        ("export", "--bundle", str(tmp_path / "x.zip")),
        ("merge", str(tmp_path / "x.zip")),
        ("plugins",),
        ("weights", "list"),
        ("doctor",),
    ):
        code, output = flowbench(*words)
        assert code == 0, (words, output)
    assert heard == []


def test_the_ear_hears_a_connection(heard, server):
    with socket.create_connection(("127.0.0.1", server)):
        pass
    assert ("socket.connect", f"('127.0.0.1', {server})") in heard


def test_all_ways_out_are_closed(closed, server):
    place = ("127.0.0.1", server)
    with socket.socket() as one, pytest.raises(offline.Offline, match=rf"127\.0\.0\.1:{server}"):
        one.connect(place)
    with socket.socket() as one, pytest.raises(offline.Offline):
        one.connect_ex(place)
    with socket.socket(type=socket.SOCK_DGRAM) as one, pytest.raises(offline.Offline):
        one.sendto(b"x", place)
    for ask in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 443)):
        with pytest.raises(offline.Offline, match=r"example\.org"):
            ask("example.org")
    with pytest.raises(offline.Offline) as raised:
        requests.get(f"http://127.0.0.1:{server}/", timeout=1)
    text = str(raised.value)
    assert text.isprintable() and "give the file that it would fetch" in text


def test_sockets_of_this_machine_stay(closed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for their paths are short
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as calling:
        listening.bind("s")
        listening.listen()
        calling.connect("s")
    one, other = socket.socketpair()
    one.close()
    other.close()


def test_a_download_says_which_file_to_give(closed, tmp_path):
    url = "https://example.org/weights.pt"
    with pytest.raises(Absent) as raised:
        download.fetch(url, tmp_path / "weights.pt", "0" * 64)
    assert f"--offline forbids the download of {url}: put the file at {tmp_path}" in str(
        raised.value
    )
    with pytest.raises(Absent, match=r"give --inception-weights FILE$"):
        download.fetch(url, tmp_path / "x", "0" * 64, instead="give --inception-weights FILE")


def test_the_option_closes_for_one_command(flowbench, monkeypatch):
    monkeypatch.delenv(offline.VARIABLE, raising=False)
    code, output = flowbench("--offline", "weights", "download", "inception")
    assert code == 2 and "--offline forbids the download of https://" in output
    assert "Traceback" not in output and len(output.splitlines()) == 1
    assert not offline.wanted() and os.environ.get("WANDB_MODE") is None
    monkeypatch.setenv(offline.VARIABLE, "1")
    assert flowbench("weights", "download", "inception") == (code, output)
    monkeypatch.setenv(offline.VARIABLE, "0")
    assert not offline.wanted()


def test_runs_and_looks_need_no_network(flowbench):
    code, output = flowbench("--offline", *RUN, "--nfe", "1", "--quiet")
    assert code == 0, output
    assert flowbench("--offline", "compare")[0] == 0


@pytest.mark.slow
def test_workers_of_a_suite_inherit_it(tmp_path, server):
    call = f"import socket; socket.create_connection(('127.0.0.1', {server})); return solvers"
    (tmp_path / "caller.py").write_text(GOOD.replace("return solvers", call))
    size = "steps = 2\nbatch = 4\nsamples = 20\nnfe = [1]\n"
    row = '[[method]]\nlabel = "a"\nmethod = "my-idea"\n'
    (tmp_path / "s.toml").write_text(f'[suite]\ntitle = "t"\ndataset = "moons"\n{size}{row}')
    words = ["-m", "flowbench", "--offline", "run", "--suite", "s.toml", "--jobs", "1"]
    words += ["--plugin", "caller.py", "--db", "r.db"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    where = f"127.0.0.1:{server}"
    assert f"--offline forbids the connection to {where} that caller.py wants" in done.stderr

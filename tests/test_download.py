"""Downloads from a server on this machine that breaks off, forgets and lies."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from flowbench import cli, download, known_weights, weights
from flowbench.download import fetch
from flowbench.records import Absent, FlowbenchError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT and keeps what was asked for; `limit` bytes are sent before it breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges, self.limit, self.resumes = [], None, True
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/weights.pth":
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "http://example.invalid/weights.pth")
            else:
                self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        start = int(asked[6:-1]) if asked and self.server.resumes else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.server.limit])
        self.close_connection = True

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.pth"


def part(path):
    return path.with_name(path.name + ".part")


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_a_file_arrives_once(server, path, sha256):
    told = []
    assert fetch(server.url, path, sha256, told.append) == path
    assert path.read_bytes() == CONTENT and not part(path).exists()
    assert told[-1].stage == "weights.pth (MiB)" and told[-1].step == told[-1].steps
    fetch(server.url, path, sha256)
    assert server.ranges == [None]


def test_a_broken_connection_is_made_anew_where_it_stopped(server, path):
    server.limit = 3 * download.PIECE
    fetch(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=196608-", "bytes=393216-"]


def test_what_arrived_is_kept_for_the_next_call(server, path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.limit = download.PIECE + 10
    with pytest.raises(Absent, match="the connection breaks again and again"):
        fetch(server.url, path, SHA256)
    assert part(path).stat().st_size == download.PIECE and not path.exists()
    server.limit = None
    fetch(server.url, path, SHA256)
    assert server.ranges[1:] == ["bytes=65536-"] and path.read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_all(server, path):
    part(path).parent.mkdir()
    part(path).write_bytes(CONTENT[:1000])
    server.resumes = False
    fetch(server.url, path, SHA256)
    assert server.ranges == ["bytes=1000-"] and path.read_bytes() == CONTENT


def test_a_part_that_is_whole_only_needs_its_name(server, path):
    part(path).parent.mkdir()
    part(path).write_bytes(CONTENT)
    fetch(server.url, path, SHA256)
    assert path.read_bytes() == CONTENT and not part(path).exists()


@pytest.mark.parametrize("start", [b"", b"damaged", CONTENT + b"more"])
def test_a_wrong_checksum_leaves_nothing(server, path, start):
    part(path).parent.mkdir()
    part(path).write_bytes(start)
    wrong = SHA256 if start else "0" * 64
    with pytest.raises(FlowbenchError, match=f"has the SHA-256 .*, not {wrong}: http://") as caught:
        fetch(server.url, path, wrong)
    assert "\n" not in str(caught.value)
    assert not path.exists() and not part(path).exists()


def test_a_file_that_is_here_is_checked_too(server, path):
    path.parent.mkdir()
    path.write_bytes(b"other")
    with pytest.raises(FlowbenchError, match=f"{path} has the SHA-256 .* delete it"):
        fetch(server.url, path, SHA256)
    assert path.read_bytes() == b"other" and server.ranges == []


def failure(url, path):
    with pytest.raises(Absent) as caught:
        fetch(url, path, SHA256, instead="set FLOWBENCH_INCEPTION")
    message = str(caught.value)
    assert "\n" not in message and url in message and "(weights.pth)" in message
    assert message.endswith("; set FLOWBENCH_INCEPTION") and "object at 0x" not in message
    return message


def test_failures_name_the_address_the_file_and_the_way_out(server, path):
    assert "the server answers 404 Not Found" in failure(server.url + "-", path)
    server.shutdown()
    server.server_close()
    assert "there is no connection to the server" in failure(server.url, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "error, words",
    [
        (requests.Timeout(), "the server does not answer in time"),
        (requests.exceptions.SSLError("..."), "its certificate is not accepted"),
        (requests.exceptions.ProxyError("..."), "the proxy refuses"),
    ],
)
def test_other_causes_are_told_apart(path, monkeypatch, error, words):
    def get(*words, **more):
        raise error

    monkeypatch.setattr(requests, "get", get)
    assert words in failure("https://example.invalid/weights.pth", path)


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowbenchError, match=r"weights.pth cannot be written: "):
        fetch(server.url, tmp_path / "file" / "weights.pth", SHA256)


def test_only_https_and_real_digests_are_taken(server, path):
    for url in ("http://example.invalid/weights.pth", "file:///etc/hostname"):
        with pytest.raises(FlowbenchError, match="is not https"):
            fetch(url, path, SHA256)
    for digest in ("", "1234567", "x" * 64, "0" * 65):
        with pytest.raises(FlowbenchError, match="is no SHA-256"):
            fetch(server.url, path, digest)


@pytest.fixture
def command(flowbench, monkeypatch, server):
    """`flowbench weights`, with Inception at the server of this test."""
    monkeypatch.setitem(cli.COMMANDS, "weights", "weights")
    inception = known_weights.KNOWN["inception"]
    here = replace(inception, summary="", url=server.url, sha256=SHA256[:8])
    monkeypatch.setitem(known_weights.KNOWN, "inception", here)
    return flowbench


def test_weights_are_listed_and_downloaded(command):
    code, listed = command("weights", "list")
    assert code == 0 and listed.count("not here") == 5
    assert "flowbench weights download inception, or give --inception-weights FILE" in listed
    code, output = command("weights", "download", "inception")
    assert code == 0 and f"SHA-256 {SHA256}" in output
    assert "weights-inception-2015-12-05-6726825d.pth" in output
    assert f"here: {known_weights.KNOWN['inception'].place}" in command("weights", "list")[1]


def test_weights_without_a_checksum_are_not_downloaded(command):
    code, output = command("weights", "download", "dinov2")
    assert code == 2 and "no checksum" in output and "FLOWBENCH_DINOV2" in output
    code, output = command("weights", "download", "inceptoin")
    assert code == 2 and "did you mean inception?" in output


def test_networks_of_losses_are_listed_apart_and_found(flowbench, monkeypatch, tmp_path):
    listed = flowbench("weights", "list")[1]
    metrics, losses = listed.split("For losses of images:\n")
    assert metrics.startswith("For metrics of images:\n  inception: ")
    assert [line.split(":")[0] for line in losses.splitlines() if not line.startswith("   ")] == [
        "  vgg16",
        "  deit",
        "  efficientnet",
    ]
    assert "flowbench weights download vgg16, or give --feature-weights vgg16=FILE, set" in losses
    for known in known_weights.KNOWN.values():
        assert known.url.endswith("/" + known.file) and known.sha256 in known.file
    known = known_weights.KNOWN["deit"]
    assert weights.find("deit", {}) is None
    known.place.parent.mkdir(parents=True)
    known.place.write_bytes(b"1")
    (tmp_path / "own").write_bytes(b"2")
    assert weights.find("deit", {}) == known.place
    monkeypatch.setenv("FLOWBENCH_DEIT", str(tmp_path / "own"))
    assert weights.find("deit", {}) == tmp_path / "own"
    assert weights.find("deit", {"deit": known.place}) == known.place
    monkeypatch.setenv("FLOWBENCH_DEIT", str(tmp_path / "nowhere"))
    with pytest.raises(FlowbenchError, match=r"FLOWBENCH_DEIT names the weights .* no such file"):
        weights.find("deit", {})

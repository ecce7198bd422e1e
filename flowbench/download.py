"""Downloads of known files: resumed after an interruption, kept only when the checksum is right."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowbench import offline
from flowbench.records import Absent, FlowbenchError, visible
from flowbench.training import Progress, ignore

TRIES = 5  # connections that may break, each going on where the one before it stopped
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces
PIECE = 1 << 16  # bytes; what a broken connection has of one is lost
MIB = 1 << 20
LOCAL = ("localhost", "127.0.0.1", "::1")


def fetch(
    url: str,
    path: Path,
    sha256: str,
    watch: Callable[[Progress], None] | None = None,
    instead: str = "",
) -> Path:
    """Download `url` to `path` unless it is there; returns `path`.

    `sha256` is the file's digest in hex or the first 8 or more digits of it. What arrived before a
    crash lies in `path.part` and is kept for the next call. `instead` says how else to supply the
    file; it ends the message of a failure. Raises Absent where the server cannot be reached or has
    no such file, FlowbenchError for a wrong checksum and for anything but https.
    """
    _check_url(url)
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise FlowbenchError(f"{sha256!r} is no SHA-256 in hex, nor the first 8 or more digits")
    part = path.with_name(path.name + ".part")
    with _reasons(url, path, instead), _alone(path):
        if path.exists():
            _check(path, sha256, "delete it, and the same command downloads it")
            return path
        _check_network(url, path, instead)
        _receive(url, part, watch or ignore)
        _keep(url, part, path, sha256)
    return path


def _keep(url: str, part: Path, path: Path, sha256: str) -> None:
    """Let the file take its place; one with another checksum is removed."""
    other = f"{shown(url)} has another file, or it was damaged on its way; try again"
    try:
        _check(part, sha256, other)
    except FlowbenchError:
        part.unlink()
        raise
    os.replace(part, path)


def _check_network(url: str, path: Path, instead: str) -> None:
    if offline.wanted():
        help = _instead(instead, path)
        raise Absent(f"--offline forbids the download of {shown(url)}: {help}")


def shown(url: str) -> str:
    """The address without user, password and query, which may hold a token."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return visible(bare.geturl() + "?..." * bool(parts.query))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise FlowbenchError(f"{shown(url)} is not https: only encrypted downloads are made")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of two processes that want one file, the second waits and finds it."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        yield


def _check(path: Path, sha256: str, what_to_do: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        raise FlowbenchError(f"{path} has the SHA-256 {found}, not {sha256}: {what_to_do}")


@contextmanager
def _reasons(url: str, path: Path, instead: str) -> Iterator[None]:
    """Turn what a download raises into one line with all that a user needs to do it by hand."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        help = _instead(instead, path)
        name = f"{shown(url)} ({path.name})"
        raise Absent(f"{name} cannot be downloaded: {_why(error)}; {help}") from error
    except OSError as error:
        raise FlowbenchError(f"{path} cannot be written: {error.strerror}") from error


def _instead(instead: str, path: Path) -> str:
    return instead or f"put the file at {path}"


def _why(error: Any) -> str:
    """The cause in a few words: what requests prints is long and names Python objects."""
    import requests

    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    kinds = {
        requests.exceptions.SSLError: "its certificate is not accepted",
        requests.exceptions.ProxyError: "the proxy refuses",
        requests.Timeout: "the server does not answer in time",
        requests.exceptions.ChunkedEncodingError: "the connection breaks again and again",
    }
    words = (word for kind, word in kinds.items() if isinstance(error, kind))
    return next(words, "there is no connection to the server")


def _receive(url: str, part: Path, watch: Callable[[Progress], None]) -> None:
    """Append to `part` until it is whole; broken connections are made anew."""
    import requests

    for tries_left in reversed(range(TRIES)):
        try:
            return _go_on(url, part, watch)
        except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
            if not tries_left or not part.exists():
                raise


def _go_on(url: str, part: Path, watch: Callable[[Progress], None]) -> None:
    """Receive what is missing of a file in one request."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        _check_url(answer.url)  # where it was sent on to
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0  # the server sends everything
        total = have + int(answer.headers.get("Content-Length", 0))
        report = _reporter(part.stem, have, total, watch)
        with part.open("ab" if have else "wb") as file:
            for piece in answer.iter_content(PIECE):
                file.write(piece)
                report(len(piece))
            file.flush()
            os.fsync(file.fileno())


def _reporter(
    name: str, have: int, total: int, watch: Callable[[Progress], None]
) -> Callable[[int], None]:
    """Tells a watcher, in MiB, of each piece that arrives."""
    start, done = time.monotonic(), have

    def report(size: int) -> None:
        nonlocal done
        done += size
        seconds = (time.monotonic() - start) * max(total - done, 0) / max(done - have, 1)
        watch(Progress(f"{name} (MiB)", done // MIB, max(total, done) // MIB, seconds_left=seconds))

    return report

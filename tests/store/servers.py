"""A private PostgreSQL server on a socket in a folder of its own; it never listens on TCP."""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER, PASSWORD = "bench", "s3cret:of/the@server"
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "80",
    "shared_buffers": "16MB",
    "fsync": "off",  # of a machine that fails, these tests say nothing
}
QUIT_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Server:
    """A running server, whose socket lies in `folder`."""

    folder: Path

    def connect(self, name: str = "postgres") -> Any:
        """A connection of the driver, for what the store does not do itself."""
        import psycopg

        words = {"host": str(self.folder), "user": USER, "password": PASSWORD, "dbname": name}
        return psycopg.connect(**words, autocommit=True)

    def new(self) -> str:
        """The URL of a new and empty database."""
        name = f"flow{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"create database {name}")
        return self.url(name)

    def url(self, name: str, password: str = PASSWORD) -> str:
        """What a user would write."""
        from urllib.parse import quote

        return f"postgresql://{USER}:{quote(password, safe='')}@/{name}?host={self.folder}"


def program(name: str) -> str | None:
    """Where a program of the server is: in PATH, or where Debian has it."""
    found = shutil.which(name)
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found or (str(places[-1]) if places else None)


def missing() -> str:
    """Why there can be no server here; empty if there can."""
    if program("initdb") is None or program("postgres") is None:
        return "no PostgreSQL server here: install the package postgresql (tests/setup.sh does)"
    if os.getuid() == 0 and _account() is None:
        return "PostgreSQL refuses root, and there is no user postgres or nobody to start it"
    return ""


@contextmanager
def serving() -> Iterator[Server]:
    """A server as long as it is needed; it ends with this process, however that ends."""
    folder = Path(tempfile.mkdtemp(prefix="fb-pg-", dir="/tmp"))  # a socket has a short name
    account = _account() if os.getuid() == 0 else None
    try:
        _make(folder, account)
        process = _start(folder, account)
        try:
            yield _ready(Server(folder), process)
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _make(folder: Path, account: pwd.struct_passwd | None) -> None:
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    words = [program("initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256"]
    words += ["--pwfile", str(secret), "--no-sync", "-E", "UTF8", "--locale=C"]
    made = subprocess.run(words, capture_output=True, text=True, cwd=folder, **_as(account))
    assert made.returncode == 0, made.stderr


def _start(folder: Path, account: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    words = [program("postgres"), "-D", str(folder / "data"), "-k", str(folder)]
    for name, value in SETTINGS.items():
        words += ["-c", f"{name}={value}"]
    library = ctypes.CDLL(None)

    def quit_with_parent() -> None:
        library.prctl(QUIT_WITH_PARENT, signal.SIGQUIT)

    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            words,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=quit_with_parent,
            **_as(account),
        )


def _ready(server: Server, process: subprocess.Popen[bytes]) -> Server:
    import psycopg

    give_up = time.monotonic() + 60
    while True:
        try:
            server.connect().close()
            return server
        except psycopg.OperationalError:
            log = (server.folder / "log").read_text()
            assert process.poll() is None and time.monotonic() < give_up, log
            time.sleep(0.05)

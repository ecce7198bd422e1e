"""What the tests of faults share: small real jobs, full and read-only disks, flipped bits."""

import errno
import os
import sqlite3
import subprocess
from contextlib import contextmanager
from pathlib import Path

# A teacher, pairs, a student and samples: every kind of file that a run writes, each small.
JOB = [
    *("run", "lmm", "--dataset", "moons", "--steps", "20", "--batch", "16", "--samples", "50"),
    *("--nfe", "1,2", "-o", "pairs=200", "-o", "pair_steps=2", "-o", "width=16"),
    *("--checkpoint-every", "0", "--quiet"),
]
SHORT = [
    *("run", "cfm", "--dataset", "moons", "--steps", "20", "--batch", "16", "--samples", "50"),
    *("--nfe", "1", "--quiet"),
]
TIMES = "name not like '%seconds%' and name not in ('ms-per-sample', 'peak-mib')"
AGAIN = "then run the same command again"


def query(database, words):
    connection = sqlite3.connect(database)
    try:
        return connection.execute(words).fetchall()
    finally:
        connection.close()


def scores(database):
    """Every score but times and memory; each of them once."""
    found = query(database, f"select subject, name, nfe, n, value from scores where {TIMES}")
    assert len({row[:4] for row in found}) == len(found), "a score was made twice"
    return sorted(found)


def outcomes(database):
    return [word for (word,) in query(database, "select outcome from attempts order by id")]


def one_line(output):
    """The single line of an error, which is all that was said of this process."""
    (line,) = [line for line in output.splitlines() if not line.startswith("waiting for another")]
    assert line.startswith("Error: ") and "Traceback" not in output
    return line


def flip(path, position=-1, bit=0):
    """Change one bit of a file, and leave its date as it is: a disk that rots tells nobody."""
    before, content = os.stat(path), bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def mounted(folder, *options):
    """Whether a small disk of its own could be mounted at `folder`; root may, in most places."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        done = False
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class FullDisk:
    """In the place of `os.fsync`: the disk is full from the write number `first` on."""

    def __init__(self, first, kind=errno.ENOSPC):
        self.first, self.kind, self.count, self.fsync = first, kind, 0, os.fsync

    def __call__(self, descriptor):
        self.count += 1
        if self.count >= self.first:
            raise OSError(self.kind, os.strerror(self.kind))
        self.fsync(descriptor)


class FullFor:
    """In the place of `os.replace`: no room for write number `first` of files with such names."""

    def __init__(self, pattern, first=1):
        self.pattern, self.left, self.replace = pattern, first, os.replace

    def __call__(self, part, path):
        self.left -= Path(path).match(self.pattern)
        if self.left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.replace(part, path)


@contextmanager
def read_only(folder):
    """Whether a folder and what is in it can be made read-only here, and for how long it is."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            yield True
        finally:
            folder.chmod(0o755)
        return
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode == 0
    words = ["mount", "-o", "remount,bind,ro", folder]
    done = bound and subprocess.run(words, capture_output=True).returncode == 0
    try:
        yield done
    finally:
        if bound:
            subprocess.run(["umount", "-l", folder], check=True)

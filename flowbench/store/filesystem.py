"""Owns the question where a file lies: on a disk of this machine, or on one that many share."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from flowbench.records import FlowbenchError

SETTING = "FLOWBENCH_SPOOL"
WORDS = ("auto", "always", "never")
MOUNTS = Path("/proc/self/mountinfo")
# Where locks or shared memory of SQLite do not hold between machines.
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "ceph"),
    *("lustre", "gpfs", "mmfs", "beegfs", "fhgfs", "panfs", "pvfs2", "orangefs", "wekafs"),
    *("gfs2", "ocfs2", "glusterfs", "vboxsf", "virtiofs", "prl_fs", "drvfs", "acfs", "davfs"),
}
# File systems of programs, behind "fuse."; others of these, such as overlays, are local.
PROGRAMS = {
    *("sshfs", "glusterfs", "ceph", "ceph-fuse", "s3fs", "gcsfuse", "goofys", "rclone", "juicefs"),
    *("mfs", "moosefs", "beegfs", "blobfuse", "blobfuse2", "davfs2", "curlftpfs", "cvmfs2"),
    *("lizardfs", "seaweedfs", "quobyte", "objectivefs", "smbnetfs", "hdfs", "grpcfuse", "osxfs"),
}


@dataclass(frozen=True)
class Mount:
    """A folder at which a file system begins, and the kind of that."""

    point: str
    kind: str

    @property
    def shared(self) -> bool:
        """Whether other machines may write there too."""
        start, _, program = self.kind.partition(".")
        return self.kind in NETWORK or (start == "fuse" and program in PROGRAMS)


def mounts(text: str) -> list[Mount]:
    """The mounts in the form of /proc/self/mountinfo; lines of another form are left out."""
    found = []
    for line in text.splitlines():
        # A varying number of fields stands before the lonely "-".
        front, dash, back = line.partition(" - ")
        fields, kinds = front.split(" "), back.split(" ")
        if dash and len(fields) >= 6:
            found.append(Mount(_unescaped(fields[4]), kinds[0]))
    return found


def _unescaped(text: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def mount_of(path: str, found: list[Mount]) -> Mount | None:
    """Where an absolute path without links lies: the longest mount point, the last of equals."""
    around = [m for m in found if path == m.point or path.startswith(m.point.rstrip("/") + "/")]
    if not around:
        return None
    longest = max(len(mount.point) for mount in around)
    return [mount for mount in around if len(mount.point) == longest][-1]


def kind(path: str | Path) -> str:
    """The file system that `path` is on or would be made on, "" where that is not network.

    Also "" on systems that do not say.
    """
    real = os.path.realpath(path)
    # A folder that is mounted when somebody looks is not in the list before.
    os.path.exists(real)
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    mount = mount_of(real, mounts(text))
    return mount.kind if mount is not None and mount.shared else ""


def is_shared(path: str | Path) -> bool:
    """Whether results there go through a spool: by FLOWBENCH_SPOOL, else by the file system.

    Raises FlowbenchError for another word than auto, always, never.
    """
    word = os.environ.get(SETTING) or "auto"
    if word not in WORDS:
        raise FlowbenchError(f"{SETTING}={word!r} is none of {', '.join(WORDS)}")
    return word == "always" or (word == "auto" and bool(kind(path)))

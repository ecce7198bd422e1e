"""Which file systems are shared between machines, told from lists of mounts."""

import pytest

from flowbench.records import FlowbenchError
from flowbench.store import filesystem

LIST = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
40 22 0:45 / /home rw,relatime shared:20 master:3 - nfs4 server:/export/home rw,vers=4.2
41 40 254:0 /scratch /home/me/local rw,relatime - ext4 /dev/vda rw
42 22 0:46 / /mnt/two\040words rw - cifs //server/share rw
43 22 0:47 / /mnt/a\134b rw - lustre mds@tcp:/fs rw
44 22 0:48 / /remote rw - fuse.sshfs me@host:/ rw
45 22 0:49 / /layers rw - fuse.fuse-overlayfs fuse-overlayfs rw
46 22 0:50 / /over rw - overlay overlay rw
47 22 0:51 / /auto rw - autofs systemd-1 rw
48 47 0:52 / /auto rw - nfs server:/auto rw
49 22 0:53 / /home2 rw - beegfs beegfs_nodev rw
50 22 0:40 /exported /bound rw,relatime shared:20 - nfs4 server:/export/exported rw
51 22 0:54 / /no-fields rw
rubbish
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    file = tmp_path / "mountinfo"
    file.write_text(LIST)
    monkeypatch.setattr(filesystem, "MOUNTS", file)
    monkeypatch.delenv(filesystem.SETTING, raising=False)
    return file


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/results.db", ""),
        ("/home/me/results.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/me/results.db", ""),  # no folder of /home
        ("/home2/results.db", "beegfs"),
        ("/home/me/local/results.db", ""),  # a local disk bound into a shared folder
        ("/bound/results.db", "nfs4"),  # a shared folder bound elsewhere
        ("/mnt/two words/results.db", "cifs"),
        ("/mnt/a\\b/results.db", "lustre"),
        ("/remote/results.db", "fuse.sshfs"),
        ("/layers/results.db", ""),
        ("/over/results.db", ""),
        ("/auto/results.db", "nfs"),  # of two at one place, the later one
        ("/no-fields/results.db", ""),
    ],
)
def test_the_longest_mount_decides(mounts, path, kind):
    assert filesystem.kind(path) == kind
    assert filesystem.is_shared(path) is bool(kind)


@pytest.mark.parametrize("kind", ["nfs", "smb3", "gpfs", "9p", "ceph", "afs", "fuse.glusterfs"])
def test_every_kind_of_network_is_known(kind):
    (mount,) = filesystem.mounts(f"1 2 0:3 / /data rw - {kind} server rw")
    assert mount.shared


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "fuse", "fuse.mergerfs"])
def test_local_kinds_are_none(kind):
    (mount,) = filesystem.mounts(f"1 2 0:3 / /data rw - {kind} disk rw")
    assert not mount.shared


def test_a_link_is_followed(mounts, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts.write_text(f"1 0 0:1 / / rw - ext4 d rw\n2 1 0:2 / {shared} rw - nfs4 server:/ rw\n")
    (tmp_path / "link.db").symlink_to(shared / "results.db")
    assert filesystem.kind(tmp_path / "link.db") == "nfs4"
    assert filesystem.kind(tmp_path / "results.db") == ""
    monkeypatch.chdir(shared)
    assert filesystem.kind("results.db") == "nfs4"


def test_without_a_list_of_mounts_all_is_local(mounts):
    mounts.unlink()
    assert filesystem.kind("/home/me/results.db") == ""


@pytest.mark.parametrize(("word", "shared"), [("always", True), ("never", False), ("", False)])
def test_a_word_decides_before_the_mounts(mounts, monkeypatch, word, shared):
    monkeypatch.setenv(filesystem.SETTING, word)
    assert filesystem.is_shared("/var/results.db") is shared
    assert filesystem.is_shared("/home/me/results.db") is (word != "never")


def test_another_word_is_refused_in_one_line(mounts, monkeypatch):
    monkeypatch.setenv(filesystem.SETTING, "sometimes")
    with pytest.raises(FlowbenchError, match="FLOWBENCH_SPOOL='sometimes' is none of auto, alwa"):
        filesystem.is_shared("/var/results.db")

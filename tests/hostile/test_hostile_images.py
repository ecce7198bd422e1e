"""Archives and images of strangers: bombs and lies are one line, odd forms read as documented."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from picture_files import encoded, images
from PIL import Image

from flowbench.data import batches, manifest, sources
from flowbench.data.archive import by_path
from flowbench.records import FlowbenchError

pytestmark = pytest.mark.usefixtures("little_memory")


def png(width, height, depth=8, colour=2, rows=b""):
    """A PNG that says it has this size, whatever it holds."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image, kind, **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def archive_of(path, content, name="00000/img00000000.png"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def refused(path, words="."):
    with pytest.raises(FlowbenchError, match=words) as raised:
        by_path(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


GOOD = images(1)[0]
TEXT = zlib.compress(bytes(50_000_000))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
REFUSED = {
    "a bomb": png(100_000, 100_000),
    "a smaller bomb": png(12_000, 9_000),
    "one that no warning tells of": png(9_000, 9_000),
    "no pixels": png(0, 0),
    "no content": png(8, 8),
    "truncated": encoded(GOOD)[:100],
    "16 bits of grey": saved(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"),
    "32 bits": saved(Image.fromarray(np.zeros((8, 8), np.int32)), "TIFF"),
    "floats": saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
    "PostScript, which another program draws": POSTSCRIPT,
    "a GIF": saved(Image.fromarray(GOOD.transpose(1, 2, 0)), "GIF"),
    "text": b"hello",
    "nothing": b"",
    "a link": b"/etc/passwd",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_here_is_one_line(tmp_path, what):
    refused(archive_of(tmp_path / "a.zip", REFUSED[what]), "cannot be read")


def pixels(content, tmp_path, name="00000/img00000000.png"):
    return np.asarray(by_path(archive_of(tmp_path / "a.zip", content, name)).train[0])


def test_odd_images_are_read_the_documented_way(tmp_path):
    rgb = Image.fromarray(GOOD.transpose(1, 2, 0))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned: the pixels stay as they are stored
    for picture in (
        saved(rgb, "PNG", exif=turned),
        saved(rgb, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        saved(rgb.convert("RGBA"), "PNG"),
    ):
        assert (pixels(picture, tmp_path) == GOOD).all()
        (tmp_path / "a.zip").unlink()
    cmyk = rgb.convert("CMYK")
    found = pixels(saved(cmyk, "JPEG"), tmp_path, "00000/a.jpg")
    back = Image.open(io.BytesIO(saved(cmyk, "JPEG"))).convert("RGB")
    assert (found == np.asarray(back).transpose(2, 0, 1)).all()
    (tmp_path / "a.zip").unlink()
    sixteen = b"".join(b"\0" + b"\x12\x34" * 24 for _ in range(8))
    assert (pixels(png(8, 8, 16, 2, sixteen), tmp_path) == 0x12).all()  # the high byte


def test_text_in_an_image_is_no_bomb(tmp_path):
    good = encoded(GOOD)
    body = b"zTXt" + b"a\0\0" + TEXT
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    refused(archive_of(tmp_path / "a.zip", good[:33] + chunk + good[33:]), "cannot be read")


def test_a_member_that_would_unpack_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST", 10**6)
    for name in ("00000/img00000000.png", "dataset.json"):
        path = archive_of(tmp_path / "a.zip", bytes(10**7), name)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("img1.png", encoded(GOOD))
        assert path.stat().st_size < 20_000
        refused(path, "would unpack to 10000000 bytes")
    path = archive_of(tmp_path / "b.zip", bytes(10**7), "flowbench.json")
    with pytest.raises(FlowbenchError, match="would unpack to"):
        manifest.find(path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = archive_of(tmp_path / "a.zip", encoded(GOOD))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    for size in (10, 2**31):
        content[at + 24 : at + 28] = size.to_bytes(4, "little")
        path.write_bytes(content)
        refused(path, "cannot be read")


@pytest.mark.parametrize(
    "name",
    ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", "C:/x.png", "c:\\x.png", "\x1b]52;x.png"],
)
def test_a_name_that_leads_elsewhere_writes_nothing(tmp_path, name):
    path = tmp_path / "folder" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"text")
    refused(path)
    assert {p.name for p in tmp_path.iterdir()} <= {"folder", "cache"}
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "table",
    [
        b"[" * 100_000,
        b'{"labels": ' + b"[" * 100_000,
        b'{"labels": [["00000/img00000000.png", 1' + b"0" * 5000 + b"]]}",
        b'{"labels": [["00000/img00000000.png", NaN]]}',
        b'{"labels": 5}',
        b"[]",
        b"\xff",
    ],
    ids=range(7),
)
def test_labels_that_are_none_are_one_line(tmp_path, table):
    path = archive_of(tmp_path / "a.zip", encoded(GOOD))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("dataset.json", table)
    refused(path, "dataset.json")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("flowbench.json", b"[" * 100_000)
    with pytest.raises(FlowbenchError, match="cannot be read"):
        manifest.find(path)


def npy(header: bytes, content=b"") -> bytes:
    text = header + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


HEADERS = {
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 3, 8, 8), }",
    "beyond 64 bits": b"{'descr': '|u1', 'fortran_order': False, 'shape': (2**80, 3, 8, 8), }",
    "long": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1," * 9000 + b"), }",
    "overflows": b"{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 8, 8),}",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 3, 8, 8), }",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 3, 8, 8), }",
    "code": b"{'descr': __import__('os').system('false'), 'shape': (1,), }",
    "deep": b"(" * 9000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", ["images", "labels"])
@pytest.mark.parametrize("what", HEADERS)
def test_an_array_whose_header_lies_is_one_line(tmp_path, what, name):
    path = tmp_path / "x"
    path.mkdir()
    np.save(path / "images.npy", images(1))
    (path / f"{name}.npy").write_bytes(npy(HEADERS[what], bytes(1000)))
    refused(path, rf"{name}\.npy")


@pytest.mark.parametrize("content", [b"PK\x05\x06" + bytes(18), b"\x80\x04K\x01.", b"\x93NUMPY"])
def test_other_files_in_the_place_of_arrays_are_one_line(tmp_path, content):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "images.npy").write_bytes(content)
    refused(tmp_path / "x", r"images\.npy")


def test_a_tar_with_a_giant_or_a_link_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "LARGEST", 10**6)
    for kind, words in ((tarfile.REGTYPE, "has 2000000 bytes"), (tarfile.SYMTYPE, "is a link")):
        path = tmp_path / "cifar-10-python.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = 2 * 10**6 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        with pytest.raises(FlowbenchError, match=words):
            batches.cifar(path, "train", exact=False)


def test_an_npz_that_would_unpack_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "LARGEST_BATCH", 10**6)
    np.savez_compressed(tmp_path / "val_data.npz", labels=np.ones(10**6, np.int64))
    with pytest.raises(FlowbenchError, match="would unpack to"):
        batches.downsampled(tmp_path, "test", 8)


def test_many_members_are_counted_by_the_file_that_is_there(tmp_path):
    """A zip that says it has 65535 members and 4 GiB of directory has what is in it."""
    path = archive_of(tmp_path / "a.zip", encoded(GOOD))
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 8 : end + 16] = b"\xff" * 8
    path.write_bytes(content)
    refused(path)

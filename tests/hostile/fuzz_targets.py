"""What is fuzzed: readers of files from anywhere, each with good files that are then changed."""

import hashlib
import io
import json
import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hostile_files import saved
from picture_files import encoded, images
from safetensors.torch import save
from stored_rows import put, score, spec

from flowbench import bundle, imports, network_files, suites
from flowbench.bundle import reading
from flowbench.checkpoints import load_state, read_facts, read_tensors
from flowbench.data.archive import by_path
from flowbench.discovery import settings
from flowbench.imports.unpickle import read_pickle
from flowbench.store import Store

SUITE = """[suite]
title = "t"
datasets = ["moons", "digits"]
seeds = [0, 1]
nfe = [1, "auto"]
[[method]]
label = "a"
method = "cfm"
options = {lr = 1e-3}
[[method]]
label = "b"
method = "lmm"
teacher = "a"
steps = 5
[[expect]]
label = "a"
dataset = "moons"
metric = "w2"
nfe = 1
max = 1.5
source = "x"
[token]
steps = 1
batch = 2
samples = 3
"""


class Target(NamedTuple):
    """A reader, the name of its file, and good content to begin with."""

    name: str
    read: Callable[[Path], object]
    good: Callable[[Path], bytes]


def _tensors(path: Path) -> None:
    read_facts(path)
    read_tensors(path)
    network_files.look(path)


def _state(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body + hashlib.sha256(body).digest())  # a stranger makes it fit
    load_state(path)


def _torch(path: Path) -> None:
    imports.read(path)


def _bundle(path: Path) -> None:
    with reading.read(path):
        pass


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _settings(path: Path) -> None:
    with _inside(path.parent):
        settings.wanted()


def _database(path: Path) -> None:
    store = Store.open_existing(f"sqlite:///{path}")
    store.measured(), store.tried(), store.environments(), store.specs()
    store.close()


def _array(path: Path) -> None:
    by_path(path.parent)


def _npy(folder: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images(2))
    return buffer.getvalue()


def _safetensors(folder: Path) -> bytes:
    facts = {"spec": {"method": "cfm", "dataset": "moons", "seed": 0}}
    return save({"a": torch.arange(6.0), "b": torch.zeros(2, 2)}, {"facts": json.dumps(facts)})


def _pickled(folder: Path) -> bytes:
    content = {"ema": torch.arange(4.0), "set": {1}, "number": np.float64(2), "text": "x"}
    return pickle.dumps(content, 2)


def _zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, image in enumerate(images(2)):
            archive.writestr(f"00000/{number}.png", encoded(image))
        archive.writestr("dataset.json", '{"labels": [["00000/0.png", 0], ["00000/1.png", 1]]}')
    return buffer.getvalue()


def _stored(folder: Path) -> Path:
    path = folder / "made.db"
    put(path, spec(), score(1.0), score(2.0, nfe=2))
    return path


def _results(folder: Path) -> bytes:
    with closing(sqlite3.connect(_stored(folder))) as connection:
        connection.execute("vacuum into ?", (str(folder / "alone.db"),))
    return (folder / "alone.db").read_bytes()


def _bundled(folder: Path) -> bytes:
    store = Store(f"sqlite:///{_stored(folder)}")
    bundle.export(store, folder, folder / "made.zip", files=False)
    return (folder / "made.zip").read_bytes()


TARGETS = {
    "suite": Target("s.toml", suites.read, lambda folder: SUITE.encode()),
    "settings": Target("flowbench.toml", _settings, lambda folder: b"[plugins]\npaths = ['.']\n"),
    "tensors": Target("n.safetensors", _tensors, _safetensors),
    "state": Target("train.pt", _state, lambda folder: saved({"a": torch.ones(3), "b": [1, "x"]})),
    "torch": Target("n.pt", _torch, lambda folder: saved({"net_model": {"a": torch.ones(3)}})),
    "pickle": Target("n.pkl", read_pickle, _pickled),
    "archive": Target("a.zip", by_path, _zip),
    "array": Target("images.npy", _array, _npy),
    "bundle": Target("b.zip", _bundle, _bundled),
    "database": Target("r.db", _database, _results),
}

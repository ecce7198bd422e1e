"""NaN and infinity: in data they are refused by row, in loss, weights and samples recorded."""

import numpy as np
import pytest
import torch
from fault_tools import SHORT, one_line, outcomes, query

from flowbench import hookimpl
from flowbench.data.base import Arrays, load
from flowbench.records import FlowbenchError

PLUGIN = '''
import numpy as np
from flowbench import hookimpl
from flowbench.data.base import Arrays
from flowbench.entries import Dataset
from flowbench.records import Budget


def broken(root=None):
    """Rows of which one is broken."""
    x = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    x[17, 1] = {value}
    return Arrays(train=x, test=x[:10] * 1)


@hookimpl
def datasets():
    return [Dataset("broken", "one bad row", broken, Budget(10, 8), 50)]
'''


@pytest.mark.parametrize("value", ["np.nan", "np.inf", "-np.inf"])
def test_a_row_of_a_plugins_data_is_named(flowbench, database, tmp_path, monkeypatch, value):
    plugin = tmp_path / "my_data.py"
    plugin.write_text(PLUGIN.replace("{value}", value))
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(plugin))
    code, output = flowbench("run", "cfm", "--dataset", "broken", "--quiet")
    word = value.replace("np.", "")
    said = f"data set broken: row 17 holds {word}: mend such rows or leave them out"
    assert code == 2 and said in one_line(output)
    assert not database.exists(), "nothing was begun"


@pytest.mark.parametrize("where", ["train", "test"])
def test_the_row_is_counted_over_all_chunks_and_splits(where, monkeypatch):
    from flowbench.data import placement

    monkeypatch.setattr(placement, "CHUNK_BYTES", 64)
    x, held_out = np.zeros((1000, 2), np.float32), np.zeros((50, 2), np.float32)
    {"train": x, "test": held_out}[where][-3, 0] = np.nan
    row = {"train": 997, "test": 47}[where]
    with pytest.raises(FlowbenchError, match=f"data set x: row {row} holds nan"):
        load("x", Arrays(x, held_out), "cpu")


def test_numbers_that_float32_cannot_hold_are_named():
    with pytest.raises(FlowbenchError, match="row 1 holds inf"), np.errstate(over="ignore"):
        load("x", Arrays(np.array([[1.0], [1e39]])), "cpu")


@pytest.mark.parametrize("label", [np.nan, 0.5, np.inf])
def test_labels_that_are_no_whole_numbers_are_named(label):
    labels = np.array([0.0, 1.0, label])
    with pytest.raises(FlowbenchError, match=f"label {label} of row 2 is no whole number"):
        load("x", Arrays(np.zeros((3, 2), np.float32), labels=labels, classes=2), "cpu")


def test_data_that_are_sound_keep_their_hash():
    """The look for NaN moved no stored key: these are from before it."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    data = load("x", Arrays(x, labels=np.array([0, 1, 0]), classes=2), "cpu")
    import hashlib

    head = repr(((3, 2), "torch.float32")).encode()
    rest = x.tobytes() + np.array([0, 1, 0], np.int64).tobytes()
    assert data.sha256 == hashlib.sha256(head + rest).hexdigest()


def broken_training(monkeypatch, change):
    """cfm, whose trained network is changed at the end."""
    from flowbench_plugins.cfm import CFM

    train = CFM.train

    @hookimpl
    def changed(self, data, run):
        network = train(self, data=data, run=run)
        with torch.no_grad():
            change(next(network.parameters()))
        return network

    monkeypatch.setattr(CFM, "train", changed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_broken_after_training_are_recorded_as_diverged(
    flowbench, database, monkeypatch, value
):
    with monkeypatch.context() as patch:
        broken_training(patch, lambda weights: weights.fill_(value))
        code, output = flowbench(*SHORT)
        assert code == 3 and "not finite" in one_line(output)
        assert outcomes(database) == ["diverged"]
        found = dict(query(database, "select name, kind from scores where nfe = 1"))
        assert found["w2"] == found["fd"] == "nan"
        code, output = flowbench(*SHORT)
        assert code == 3 and "diverged" not in output.splitlines()[1:], "it stays a failure"
    code, output = flowbench("compare")
    assert code in (0, 5) and "diverged" in output


@pytest.mark.parametrize("lr", ["nan", "1e30"])
def test_a_loss_that_is_broken_is_recorded_as_diverged(flowbench, database, lr):
    code, output = flowbench(*SHORT, "-o", f"lr={lr}")
    if lr == "nan":
        assert code == 2 and "must be finite" in output and not database.exists()
        return
    assert code == 3 and "the loss became" in one_line(output)
    assert outcomes(database) == ["diverged"]
    assert query(database, "select count(*) from scores where nfe = 1") == [(0,)]


@pytest.mark.parametrize("rows", [[0, 49]])
def test_samples_that_are_broken_are_counted_and_recorded(flowbench, database, monkeypatch, rows):
    from flowbench_plugins.cfm import CFM

    from flowbench import solvers

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        x = solvers.euler(network, noise, labels, nfe)
        if len(x) >= 50:
            x[rows] = float("nan")
        return x

    monkeypatch.setattr(CFM, "sample", sample)
    code, output = flowbench(*SHORT)
    assert code == 3 and f"{len(rows)} of 50 at NFE 1" in one_line(output)
    assert outcomes(database) == ["diverged"]
    query_words = "select distinct kind from scores where nfe = 1 and name in ('w2', 'fd')"
    assert query(database, query_words) == [("nan",)], "no number of the rows that are left"

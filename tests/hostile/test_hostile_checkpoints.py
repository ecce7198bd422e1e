"""Checkpoints of strangers: nothing is unpickled, and no header makes more of a file than it is."""

import hashlib

import pytest
import torch
from hostile_files import Call, entry, poisoned, repacked, safetensors, saved

from flowbench import imports, network_files, torch_files, weights
from flowbench.checkpoints import load_state, read_facts, read_tensors, save_state
from flowbench.imports.unpickle import read_pickle
from flowbench.records import FlowbenchError

pytestmark = pytest.mark.usefixtures("little_memory")

DEEP = b'{"__metadata__": {"facts": "' + b"[" * 100_000 + b'"}}'
HEADERS = {
    "empty": b"",
    "a length alone": (8).to_bytes(8, "little"),
    "a header of exabytes": safetensors({}, length=2**62),
    "a header longer than the file": safetensors({}, length=1000),
    "no JSON": safetensors(b"{"),
    "a list": safetensors([]),
    "deep": safetensors(b"[" * 100_000),
    "deep facts": safetensors(DEEP),
    "facts that are a list": safetensors({"__metadata__": {"facts": "[]"}}),
    "facts that are no JSON": safetensors({"__metadata__": {"facts": "{"}}),
    "a spec that is none": safetensors({"__metadata__": {"facts": '{"spec": 5}'}}),
    "a spec of odd types": safetensors(
        {"__metadata__": {"facts": '{"spec": {"budget": {"steps": "x", "batch": []}}}'}}
    ),
    "an import that is none": safetensors({"__metadata__": {"facts": '{"import": []}'}}),
    "metadata that are none": safetensors({"__metadata__": 5}),
    "overlapping": safetensors({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),
    "a hole": safetensors({"a": entry([1], [0, 4]), "b": entry([1], [8, 12])}, bytes(12)),
    "beyond the end": safetensors({"a": entry([2**40], [0, 2**42])}, bytes(8)),
    "a shape that overflows": safetensors({"a": entry([2**63, 2**63], [0, 8])}, bytes(8)),
    "another shape than its bytes": safetensors({"a": entry([10**9], [0, 8])}, bytes(8)),
    "backwards": safetensors({"a": entry([1], [4, 0])}, bytes(8)),
    "negative": safetensors({"a": entry([-1], [0, 4])}, bytes(8)),
    "an unknown type": safetensors({"a": entry([1], [0, 4], "PICKLE")}, bytes(4)),
}
READERS = {"tensors": read_tensors, "facts": read_facts, "look": network_files.look}


def one_line(path, read):
    """The message with which a file is refused."""
    with pytest.raises(FlowbenchError) as raised:
        read(path)
    text = str(raised.value)
    assert str(path) in text and "\n" not in text
    return text


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies_is_one_line(tmp_path, what):
    path = tmp_path / "network.safetensors"
    path.write_bytes(HEADERS[what])
    refused = 0
    for read in READERS.values():
        try:
            read(path)
        except FlowbenchError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused, "nobody noticed"


EXPANDED = torch.zeros(1).expand(10**6, 10**6)
STATES = {
    "a call": (saved(Call(print, "run")), "state"),
    "a bomb": (repacked(saved({"a": torch.zeros(10**7)})), "state"),
    "an enormous tensor of one number": (saved({"a": EXPANDED}), "state"),
    "within lists": (saved({"a": [({"b": EXPANDED},)]}), "state"),
    "a tensor without content": (saved({"a": torch.zeros(10**6, 10**6, device="meta")}), "state"),
    "no zip": (b"text", "state"),
    "half a zip": (saved({"a": torch.zeros(10)})[:300], "state"),
    "a pickle": (poisoned("false"), "state"),
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_of_a_stranger_is_refused_though_its_checksum_fits(tmp_path, capfd, what):
    path = tmp_path / "train.pt"
    content = STATES[what][0]
    path.write_bytes(content + hashlib.sha256(content).digest())
    assert "delete it, and this stage is trained anew" in one_line(path, load_state)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("what", STATES)
def test_published_files_of_that_form_are_refused(tmp_path, capfd, what):
    path = tmp_path / "network.pt"
    path.write_bytes(STATES[what][0])
    one_line(path, imports.read)
    with pytest.raises(FlowbenchError):
        weights.read(path, "vgg16")
    assert capfd.readouterr().out == ""


def test_a_state_of_ours_is_read(tmp_path):
    state = {"step": 3, "tensors": [torch.arange(4.0), torch.zeros(0)], "view": torch.ones(9)[2:5]}
    save_state(tmp_path / "train.pt", state)
    found = load_state(tmp_path / "train.pt")
    assert found["step"] == 3 and torch.equal(found["tensors"][0], torch.arange(4.0))
    assert torch.equal(found["view"], torch.ones(3))


def test_content_that_contains_itself_is_looked_at_once():
    held: list = [torch.zeros(1)]
    held.append(held)
    assert len(list(torch_files.tensors({"a": held}))) == 1


def test_a_pickle_of_edm_cannot_ask_for_more_numbers_than_it_has(tmp_path):
    import pickle

    whole = torch.arange(4.0).__reduce_ex__(4)[1][0]
    path = tmp_path / "network.pkl"
    build = torch._utils._rebuild_tensor_v2
    for size, stride in [((10**6, 10**6), (0, 0)), ((10**12,), (0,)), ((2, 4), (0, 1))]:
        path.write_bytes(pickle.dumps(Call(build, whole, 0, size, stride, False, {})))
        assert "outside its storage" in one_line(path, read_pickle)

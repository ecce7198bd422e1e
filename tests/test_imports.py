"""Imports of published checkpoints: files of the real formats, written here, and forged ones."""

import contextlib
import os
import pickle
import sys
import types
from collections import OrderedDict
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowbench import FlowbenchError, imports, nets, plugins
from flowbench.checkpoints import file_hash, save_tensors
from flowbench.imports.unpickle import read_pickle
from flowbench.nets.backbone import Backbone
from flowbench.nets.guided import GuidedUNet
from flowbench.nets.settings import ADM, DDPMpp, NCSNpp, OpenAI
from flowbench.records import Absent

SMALL = {"channels": 32, "mult": (1, 2), "blocks": 1, "attention": (4,)}
EDM = [
    (DDPMpp(**SMALL, dropout=0.25), 0),
    (DDPMpp(**SMALL | {"mult": (1, 2, 2), "blocks": 2}, augment=0), 3),
    (NCSNpp(**SMALL), 2),
    (ADM(**SMALL | {"attention": (8, 4)}), 4),
]
IMAGENET = OpenAI(
    channels=128,
    mult=(1, 1),
    blocks=1,
    attention=(32,),
    scale_shift=True,
    resblock_updown=True,
)


def random(net, scale=0.05):
    """The network with all parameters random: many start at zero, behind which nothing is seen."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, scale)
    return net.eval()


# Pickles of EDM's code, made by classes that pickle as its torch_utils.persistence does.


def module(name, **parts):
    """A module that can be pickled from."""
    made = types.ModuleType(name)
    for part, value in parts.items():
        value.__module__, value.__qualname__ = name, part
        setattr(made, part, value)
    return made


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the code of a pickle is run")


class EasyDict(dict):
    """EDM's dictionaries."""


class Persistent:
    """An object of a persistent class."""

    def __init__(self, name, state):
        self.name, self.state = name, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "class_name": self.name, "state": self.state}
        meta["module_src"] = "raise SystemExit('the source of a pickle is run')"
        return _reconstruct_persistent_obj, (meta,)


def tree(net, name, **attributes):
    """A network as EDM's code pickles it."""
    if isinstance(net, nn.ModuleDict):
        kept = nn.ModuleDict()
        kept._modules = OrderedDict((n, tree(c, "UNetBlock")) for n, c in net._modules.items())
        return kept
    children = {n: tree(c, "Linear") for n, c in net._modules.items() if c is not None}
    state = {
        "training": False,
        "_parameters": OrderedDict(net._parameters),
        "_buffers": OrderedDict(net._buffers),
        "_non_persistent_buffers_set": set(),
        "_modules": OrderedDict(children),
        "_init_kwargs": EasyDict(),
        "skip_scale": np.sqrt(0.5),
        **attributes,
    }
    return Persistent(name, state)


@pytest.fixture
def pickled(monkeypatch, tmp_path):
    """Write a pickle as EDM does: its path."""
    persistence = module(
        "torch_utils.persistence", _reconstruct_persistent_obj=_reconstruct_persistent_obj
    )
    util = module("dnnlib.util", EasyDict=EasyDict)
    for made in (persistence, util):
        monkeypatch.setitem(sys.modules, made.__name__.partition(".")[0], types.ModuleType("x"))
        monkeypatch.setitem(sys.modules, made.__name__, made)

    def write(content, name="network.pkl", protocol=4):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content, protocol))
        return path

    return write


def edm(backbone, name="EDMPrecond", dropout=None, sigma_data=0.5):
    """What a pickle of EDM holds: the averaged network, and more that is not imported."""
    model = tree(backbone.model, "SongUNet")
    if dropout is not None:
        model.state["dropout"] = dropout
    holder = nn.Module()
    precond = tree(holder, name, sigma_data=sigma_data, label_dim=backbone.classes)
    precond.state["_modules"]["model"] = model
    loss = Persistent("EDMLoss", {"P_mean": -1.2})
    return {"ema": precond, "loss_fn": loss, "dataset_kwargs": EasyDict(path="x.zip", use=True)}


def data_for(found):
    """Data that the method of an import is asked for a network with."""
    parts = {"shape": found.shape, "classes": found.classes, "std": found.std}
    return types.SimpleNamespace(kind="image", device="cpu", network=found.network, **parts)


def loaded(found):
    """The network of the method that an import names, with its weights."""
    network = plugins.method(found.method, found.options).network(data_for(found))
    network.load_state_dict(found.tensors)
    return network.eval()


@pytest.mark.parametrize("settings, classes", EDM, ids=lambda p: getattr(p, "name", p))
def test_a_pickle_of_edm_becomes_the_same_denoiser(pickled, settings, classes):
    source = random(Backbone(settings, (3, 8, 8), classes))
    content = edm(source, dropout=settings.dropout, sigma_data=np.float64(0.4))
    path = pickled(content, "edm-tiny-vp.pkl")
    found = imports.read(path)
    assert (found.form, found.method, found.options) == ("edm-pickle", "edm", {})
    assert (found.network, found.shape, found.classes, found.std) == (
        *(settings, (3, 8, 8), classes),
        0.4,
    )
    assert found.facts["sha256"] == file_hash(path)
    assert found.facts["licence"] == "CC BY-NC-SA 4.0"
    assert found.facts["source"].endswith("nvidia.com/edm/pretrained/edm-tiny-vp.pkl")
    assert found.parameters == sum(p.numel() for p in source.parameters())
    x, sigma, y = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 20.0]), torch.tensor([0, 1])
    expected = nets.Denoiser(source, 0.4)(x, sigma, y)
    assert torch.equal(loaded(found)(x, sigma, y), expected)


def test_without_its_attributes_a_pickle_tells_the_settings_by_names_and_shapes(pickled):
    settings = DDPMpp(**SMALL)
    content = edm(random(Backbone(settings, (1, 8, 8))))
    del content["ema"].state["sigma_data"]
    found = imports.read(pickled(content))
    assert (found.network, found.shape, found.classes) == (settings, (1, 8, 8), 0)
    assert found.std == 0.5  # EDM's default
    assert found.facts["source"] == "https://github.com/NVlabs/edm"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_all_protocols_hold_the_same_values(pickled, protocol):
    content = {
        "part": torch.arange(12.0).reshape(3, 4)[:, 1:3],
        "parameter": nn.Parameter(torch.ones(2)),
        "half": torch.tensor(0.5, dtype=torch.float16),
        "empty": torch.zeros(0),
        "numbers": (np.float64(0.5), np.int64(-3), np.bool_(True), 7),
        "dict": EasyDict(a=1),
        "set": {1, 2},
        "bytes": b"\x00\xff",
    }
    found = read_pickle(pickled(content, protocol=protocol))
    for name in ("part", "parameter", "half", "empty"):
        assert torch.equal(found.pop(name), content.pop(name).detach())
    assert found == content and type(found["dict"]) is dict
    assert [type(n) for n in found["numbers"]] == [float, int, bool, int]


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_no_code_of_a_pickle_is_run(pickled, tmp_path):
    trace = tmp_path / "trace"
    attack = Call(os.system, f"touch '{trace}'")
    bad = pickled({"ema": attack})
    pickle.loads(bad.read_bytes())  # what an ordinary reader would do
    assert trace.exists()
    trace.unlink()
    with pytest.raises(
        FlowbenchError, match=r"network\.pkl asks for 'posix\.system', which is not"
    ):
        imports.read(bad)
    buffer = BytesIO()
    torch.save(attack, buffer)
    inner = Call(torch.storage._load_from_bytes, buffer.getvalue())
    whole = tmp_path / "whole.pt"
    whole.write_bytes(buffer.getvalue())
    for path in (pickled({"ema": inner}), whole):
        with pytest.raises(FlowbenchError) as refusal:
            imports.read(path)
        assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)
    for name in (eval, getattr, torch.load, nn.Linear, os.path.join):
        with pytest.raises(FlowbenchError, match="asks for"):
            imports.read(pickled({"ema": Call(name, "1")}))
    assert not trace.exists()


def test_a_pickle_cannot_change_what_it_names(tmp_path):
    path = tmp_path / "poison.pkl"
    path.write_bytes(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x04evilK\x01sb.")
    pickle.loads(path.read_bytes())
    assert torch._utils._rebuild_tensor_v2.__dict__.pop("evil") == 1
    read_pickle(path)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil")
    path.write_bytes(b"\x80\x02cdnnlib.util\nEasyDict\n}U\x04evilK\x01sb.")
    with pytest.raises(FlowbenchError, match="cannot be read"):
        read_pickle(path)
    assert not hasattr(dict, "evil")


def test_a_tensor_outside_its_storage_is_refused(pickled):
    whole = torch.arange(4.0).__reduce_ex__(4)[1][0]
    inside = Call(torch._utils._rebuild_tensor_v2, whole, 1, (3,), (1,), False, {})
    assert read_pickle(pickled({"ema": inside}))["ema"].tolist() == [1, 2, 3]
    for offset, size, stride in [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (1,), (1,))]:
        forged = Call(torch._utils._rebuild_tensor_v2, whole, offset, size, stride, False, {})
        with pytest.raises(FlowbenchError, match="outside its storage"):
            read_pickle(pickled({"ema": forged}))


@pytest.fixture
def good(pickled):
    """A good pickle of EDM: (content, function that writes it)."""
    return edm(random(Backbone(DDPMpp(**SMALL), (3, 8, 8)))), pickled


@pytest.mark.parametrize("name", ["VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_other_preconditionings_are_refused(good, name):
    content, write = good
    content["ema"].name = name
    with pytest.raises(FlowbenchError, match=f"preconditioned by '{name}', and only EDMPrecond"):
        imports.read(write(content))


def test_damage_is_one_line_that_names_the_file(good, tmp_path):
    content, write = good
    path = write(content)
    imports.read(path)
    whole = path.read_bytes()
    broken = {"half": whole[: len(whole) // 2], "start": whole[:20], "none": b"", "text": b"hello"}
    torch.save({"net_model": {}}, tmp_path / "zip")
    broken["zip"] = (tmp_path / "zip").read_bytes()[:300]
    broken["odd"] = pickle.dumps({"ema": 3})
    broken["list"] = pickle.dumps([1])
    for name, content in broken.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
        with pytest.raises(FlowbenchError) as error:
            imports.read(tmp_path / f"{name}.pkl")
        assert f"{name}.pkl" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(Absent, match="there is no file"):
        imports.read(tmp_path / "absent.pkl")


def test_another_architecture_is_refused(good):
    content, write = good
    model = content["ema"].state["_modules"]["model"].state["_modules"]
    block = model["enc"]._modules["8x8_block0"].state["_modules"]
    conv, norm = block["conv1"], block.pop("norm1")
    with pytest.raises(FlowbenchError, match=r"tensors differ, such as 'net\.model\.enc\.8x8_b"):
        imports.read(write(content))
    block["norm1"] = norm
    model["map_layer9"] = conv
    with pytest.raises(FlowbenchError, match=r"such as 'net\.model\.map_layer9"):
        imports.read(write(content))
    del model["map_layer9"], model["map_layer0"]
    with pytest.raises(FlowbenchError, match="no DDPM"):
        imports.read(write(content))
    model["enc"]._modules["8x8_block0"] = model["enc"]
    with pytest.raises(FlowbenchError, match="nested too deeply"):
        imports.read(write(content))


# Files of torch.save.


def published(tmp_path, name, content):
    """Write a file with torch.save: its path."""
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("method", ["edm", "ctm"])
def test_consistency_models_become_the_same_function(tmp_path, method):
    name = {"edm": "edm_imagenet64_ema.pt", "ctm": "cd_imagenet64_lpips.pt"}[method]
    source = random(GuidedUNet(IMAGENET, (3, 64, 64), 5, qkv_first=True))
    state = {n: w[..., None] if "qkv.w" in n else w for n, w in source.state_dict().items()}
    found = imports.read(published(tmp_path, name, state))  # its 1x1 convolutions have two sides
    assert (found.form, found.method) == ("consistency-models", method)
    assert found.options == ({"variant": "cd"} if method == "ctm" else {})
    dropout = 0.1 if method == "edm" else 0.0
    same = {"channels": 128, "mult": (1, 1), "blocks": 1, "attention": (32,)}
    assert found.network == ADM(**same, dropout=dropout, time_scale=1000.0)
    assert (found.shape, found.classes) == ((3, 64, 64), 5)
    assert found.facts["licence"] == "MIT"
    net = loaded(found)
    x, sigma, y = torch.randn(1, 3, 64, 64), torch.tensor([1.3]), torch.tensor([4])
    output = source(x, 250 * sigma.log(), nn.functional.one_hot(y, 5).float())
    torch.testing.assert_close(net.net(x, sigma.log() / 4, y), output, rtol=1e-4, atol=1e-4)
    low = torch.tensor([0.002])
    assert torch.equal(net(x, low, y), x) == (method == "ctm")  # its boundary condition


def test_what_a_file_of_openai_does_not_say_is_asked_for(tmp_path):
    with torch.device("meta"):
        net = GuidedUNet(IMAGENET, (3, 64, 64), 5)
        other = GuidedUNet(replace(IMAGENET, mult=(1, 1, 2), scale_shift=False), (3, 128, 128))
    path = published(tmp_path, "mine.pt", zeros(net))
    with pytest.raises(FlowbenchError, match="add --name"):
        imports.read(path)
    for name, method in [("edm_imagenet64_ema.pt", "edm"), ("ct_imagenet64.pt", "ctm")]:
        found = imports.read(path, name=name)
        assert (found.method, found.facts["file"]) == (method, name)
    with pytest.raises(FlowbenchError, match="only the 64x64 ones of ImageNet"):
        imports.read(published(tmp_path, "cd_bedroom256_l2.pt", zeros(other)))


def zeros(net):
    """A state dict of zeros."""
    return {name: torch.zeros(tensor.shape) for name, tensor in net.state_dict().items()}


def test_ctm_for_cifar_is_told_both_times(tmp_path):
    settings = DDPMpp(**SMALL, augment=0)
    source = random(Backbone(settings, (3, 8, 8), 2, times=2))
    state = {name.replace("_second.", "_s."): t for name, t in source.state_dict().items()}
    found = imports.read(published(tmp_path, "ema_0.999_049000.pt", state))
    assert (found.form, found.method, found.options) == ("ctm", "ctm", {})
    assert (found.network, found.shape, found.classes) == (settings, (3, 8, 8), 2)
    x, y = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    t, s = torch.tensor([80.0, 1.0]), torch.tensor([0.5, 0.002])
    net = loaded(found)
    assert torch.equal(net.net(x, torch.stack([t, s], 1), y), source(x, torch.stack([t, s], 1), y))
    assert not torch.allclose(net(x, t, y, s), net(x, t, y, t))


def test_ctm_for_imagenet_is_the_same_function(tmp_path):
    source = random(GuidedUNet(IMAGENET, (3, 64, 64), 5, times=2, qkv_first=True))
    state = {f"module.{n.replace('_second', '_s')}": t for n, t in source.state_dict().items()}
    found = imports.read(published(tmp_path, "ema_0.999_049000.pt", state))
    assert (found.form, found.method, found.options) == ("ctm", "ctm", {})
    assert found.network.time_scale == 1000
    net = loaded(found)
    x, y, times = torch.randn(1, 3, 64, 64), torch.tensor([3]), torch.tensor([[5.0, 0.1]]).log()
    output = source(x, 250 * times, nn.functional.one_hot(y, 5).float())
    torch.testing.assert_close(net.net(x, times / 4, y), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_average_of_torchcfm_is_imported(tmp_path, legacy):
    settings = OpenAI(channels=64, mult=(1, 2), blocks=1, attention=(16,))
    source = random(GuidedUNet(settings, (3, 32, 32)))
    optimiser = torch.optim.Adam(source.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
    content = {
        "net_model": zeros(source),
        "ema_model": {f"module.{name}": tensor for name, tensor in source.state_dict().items()},
        "sched": schedule.state_dict(),
        "optim": optimiser.state_dict(),
        "step": 400000,
    }
    path = tmp_path / "otcfm_cifar10_weights_step_400000.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = imports.read(path)
    assert (found.form, found.method, found.network) == ("torchcfm", "cfm", settings)
    assert (found.shape, found.classes) == ((3, 32, 32), 0)
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([0.7])
    torch.testing.assert_close(loaded(found)(x, t), source(x, t), rtol=1e-5, atol=1e-5)
    other = published(tmp_path, "net.pt", {"net_model": content["net_model"]})
    assert not any(tensor.any() for tensor in imports.read(other).tensors.values())


def test_files_of_torch_with_something_else_are_refused(tmp_path):
    for name, content, problem in [
        ("plain.pt", {"weight": torch.zeros(3)}, "no network that is known"),
        ("list.pt", [torch.zeros(3)], "no network that is known"),
        ("module.pt", {"net": nn.Linear(2, 2)}, "holds more than tensors and plain values"),
        ("empty.pt", {"ema_model": {}}, "no U-Net of OpenAI's code"),
    ]:
        with pytest.raises(FlowbenchError, match=f"{name}.*{problem}"):
            imports.read(published(tmp_path, name, content))


# The command, and the file that it writes.


def test_the_command_writes_a_file_that_reads_back_as_the_same(good, flowbench, tmp_path):
    content, write = good
    path = write(content, "edm-tiny.pkl")
    with contextlib.chdir(tmp_path):
        code, output = flowbench("import", str(path), "--licence", "ours alone")
    assert code == 0
    for line in ("method edm", "network ddpmpp,channels=32", "licence ours alone", "3x8x8"):
        assert line in output
    assert file_hash(path) in output
    written = tmp_path / "edm-tiny.safetensors"
    first, second = imports.read(path, licence="ours alone"), imports.read(written)
    assert second.tensors.keys() == first.tensors.keys()
    assert all(torch.equal(t, first.tensors[name]) for name, t in second.tensors.items())
    assert replace(second, tensors={}) == replace(first, tensors={})
    code, output = flowbench("import", str(written), "--output", str(written))
    assert code == 2 and "would be overwritten" in output
    code, output = flowbench("import", str(path), "--output", str(tmp_path / "folder"))
    assert code == 0 and (tmp_path / "folder/edm-tiny.safetensors").exists()


def test_the_command_fails_in_one_line(flowbench, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to import")
    code, output = flowbench("import", str(tmp_path / "notes.txt"))
    assert code == 2 and "is no checkpoint: give a .pkl" in output and "Traceback" not in output
    assert not list(Path(tmp_path).glob("*.safetensors"))


def test_other_safetensors_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    for facts, problem in [
        ({}, "not written by flowbench import"),
        ({"spec": {}}, "a network of flowbench already"),
        ({"import": {"form": "ctm", "shape": "x"}}, "not written by flowbench import"),
        # Whatever the length of its header, with which the file begins:
        *(({"rest": "x" * 8 * n}, "not written by flowbench import") for n in range(32)),
    ]:
        save_tensors(path, {"a": torch.zeros(2)}, facts)
        with pytest.raises(FlowbenchError, match=problem):
            imports.read(path)

"""Backbones of plugins: found by name for every method, checked, and part of a run's key."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from flowbench import nets, planning, plugins
from flowbench.nets.backbone import Backbone
from flowbench.nets.network import Network, Precision
from flowbench.nets.settings import NETWORKS
from flowbench.planning import Request, Setup
from flowbench.records import FlowbenchError
from flowbench.store import Store
from flowbench.testing import toy

pytestmark = pytest.mark.usefixtures("coarse_likelihood")

PATCHES = Path(__file__).parent / "third_party/flowbench_patches.py"
TINY = ("--dataset", "digits", "--steps", "3", "--batch", "8", "--nfe", "1", "--samples", "20")
WORD = "patches,channels=8,side=4,blocks=1"
ROWS = '''
from dataclasses import dataclass
from torch import nn
from flowbench import hookimpl, nets

@dataclass(frozen=True)
class Rows(nets.Network):
    """For vectors, too."""

    name = "rows"
    vectors = True
    channels: int = 8

    def build(self, shape, classes, times):
        return nets.MLP(shape, width=self.channels, times=times)

@hookimpl
def networks():
    return [Rows]
'''


@pytest.fixture
def patches(monkeypatch):
    """The settings class of the example, which lies in a loose file."""
    monkeypatch.setenv("FLOWBENCH_PLUGINS", str(PATCHES))
    return plugins.networks()["patches"]


def plan(method, network=WORD, dataset="digits", **words):
    return planning.plan(Request(method, dataset, network=network, nfe=(), **words), Setup())


@dataclass(frozen=True)
class Layer(Network):
    """One layer; `seen` are the types that it computed in."""

    name = "layer"
    precision: Precision = "float32"

    def build(self, shape, classes, times):
        return Convolution(shape[0])


class Convolution(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.last, self.seen = nn.Conv2d(channels, channels, 1), []

    def forward(self, x, t, label=None):
        h = self.last(x)
        self.seen.append(h.dtype)
        return h


def test_the_built_in_ones_come_through_the_hook_alone(flowbench, monkeypatch):
    assert plugins.networks() == dict(NETWORKS)
    monkeypatch.setenv("FLOWBENCH_DISABLED", "flowbench:networks")
    assert plugins.networks() == {}
    code, output = flowbench("run", "cfm", *TINY, "--network", "adm")
    assert code == 2 and "no network 'adm'" in output


def test_catalogues_are_read_without_torch():
    code = (
        "import sys; from flowbench import plugins; print(len(plugins.networks()),"
        " len(plugins.reports()), *({'torch', 'rich', 'jinja2', 'altair'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.split() == ["4", "6"], done.stderr


def test_all_are_listed_with_where_they_come_from(flowbench, patches):
    code, output = flowbench("networks")
    assert code == 0 and output.count("[flowbench 0.1.0]") == len(NETWORKS)
    line = next(line for line in output.splitlines() if line.startswith("patches"))
    assert "An MLP-Mixer" in line and line.endswith(f"[{PATCHES}]")
    code, output = flowbench("networks", "patches,side=4")
    assert code == 0 and "side = 4  (int)\n      pixels of a patch\n" in output
    code, output = flowbench("networks", "patchs")
    assert code == 2 and "did you mean patches?" in output.splitlines()[-1]


@pytest.mark.parametrize("classes", [0, 3])
def test_the_example_keeps_the_contract(patches, classes):
    torch.manual_seed(0)
    one, two = (Backbone(patches(channels=8), (1, 8, 8), classes, times) for times in (1, 2))
    shared = {name: v for name, v in two.state_dict().items() if "second" not in name}
    one.load_state_dict(shared)
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.9]), torch.tensor([0, 2])
    expected = one(x, t, y)
    assert expected.shape == x.shape and nets.last_weight(nets.Denoiser(one, 0.5)) is not None
    torch.testing.assert_close(two(x, torch.stack([t, 1 - t], 1), y), expected)
    assert torch.equal(one(x, t, None), expected) == (classes == 0)
    assert not torch.equal(one(x, 1 - t, y), expected)
    expected.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in one.parameters())


@pytest.mark.parametrize("method", ["cfm", "edm", "ctm", "lfm", "bot-cfm", "lmm", "rect-flow"])
def test_every_method_gets_the_chosen_one(patches, method):
    made = plan(method)
    parts = list(made.method.network(made.data).modules())
    chosen = [part.settings for part in parts if isinstance(part, Backbone)]
    assert chosen and {type(settings) for settings in chosen} == {patches}
    assert not any(isinstance(part, nets.UNet) for part in parts)


def test_a_run_and_what_goes_on_from_its_files(flowbench, patches, database, monkeypatch):
    code, output = flowbench("run", "cfm", *TINY, "--network", WORD)
    assert code == 0, output
    store = Store.open_existing(f"sqlite:///{database}")
    (tried,) = store.tried()
    assert tried.spec.setting["network"]["name"] == "patches"
    again = planning.again(tried.spec, Setup())
    assert again.spec.key == tried.spec.key and type(again.data.network) is patches
    (file,) = database.parent.glob("runs/*/network.safetensors")
    sampled = ["run", "cfm", *TINY, "--weights", str(file)]
    code, output = flowbench(*sampled)
    assert code == 0, output
    monkeypatch.delenv("FLOWBENCH_PLUGINS")
    code, output = flowbench(*sampled)
    assert code == 2 and "no network 'patches'" in output.splitlines()[-1]
    with pytest.raises(FlowbenchError, match="no network 'patches'"):
        planning.again(tried.spec, Setup())
    assert flowbench("report")[0] == 0, "results are read without the plugin"


def keys(tmp_path, monkeypatch, *sources):
    """The key of one run with each of several versions of the example."""
    found = []
    for number, source in enumerate(sources):
        path = tmp_path / f"version{number}.py"
        path.write_text(source)
        monkeypatch.setenv("FLOWBENCH_PLUGINS", str(path))
        found.append(plan("cfm").spec.key)
    return found


def test_the_code_of_a_network_is_in_the_key_of_the_run(tmp_path, monkeypatch):
    source = PATCHES.read_text()
    changed = source.replace("nn.SiLU()", "nn.GELU()")
    assert changed != source
    one, same, other = keys(tmp_path, monkeypatch, source, f"{source}\n# a remark\n", changed)
    assert one == same != other


def test_the_settings_of_built_in_ones_are_stored_as_ever():
    stored = plan("cfm", "ddpmpp,channels=16,blocks=1").spec.setting["network"]
    expected = {"name": "ddpmpp", "channels": 16, "mult": [2, 2, 2], "blocks": 1, "augment": 9}
    expected |= {"attention": [16], "dropout": 0.13, "time_scale": 1.0, "precision": "float32"}
    assert json.loads(json.dumps(stored)) == expected


def test_half_precision_is_for_those_that_have_the_setting(flowbench, patches):
    code, output = flowbench("run", "cfm", *TINY, "--network", WORD, "--precision", "bf16")
    assert code == 2 and "network patches computes in float32" in output.splitlines()[-1]
    assert plan("cfm", precision="fp32").spec.key != plan("cfm", "patches").spec.key
    for precision in ("float32", "bfloat16"):
        net = Backbone(Layer(precision=precision), (1, 4, 4))
        assert net(torch.ones(2, 1, 4, 4), torch.ones(2)).dtype == torch.float32
        assert net.model.seen == [getattr(torch, precision)]


def test_a_width_that_cannot_be_built_is_refused_by_the_nearest_that_can(patches):
    @dataclass(frozen=True)
    class Odd(Network):
        name = "odd"
        channels: int = 3

        def fits(self, channels):
            return channels % 2 == 1

    with pytest.raises(FlowbenchError, match=r"channels=66: type channels=65$"):
        Odd(channels=66)
    with pytest.raises(FlowbenchError, match="odd needs positive channels"):
        Odd(channels=0)
    with pytest.raises(FlowbenchError, match="odd fits no multiple of 8"):
        nets.width_for(_Sees(Odd()), 100)
    with pytest.raises(FlowbenchError, match=r"patches of side=3 do not fill images of \(8, 8\)"):
        plan("cfm", "patches,side=3")


class _Sees:
    """Data, as far as the choice of a width looks at them."""

    kind, shape, classes = "image", (1, 8, 8), 0

    def __init__(self, network):
        self.network = network


@pytest.mark.parametrize("name", ["small", "Capital", "two words", "a,b", "a=b", "", 3])
def test_a_name_that_no_word_could_say_is_refused_where_it_is_given(name):
    with pytest.raises(TypeError, match="cannot be the name of a network"):
        type("Wrong", (Network,), {"name": name})


def test_a_setting_may_not_take_the_place_of_the_hash():
    with pytest.raises(TypeError, match="another name for its setting 'code'"):
        type("Wrong", (Network,), {"name": "wrong", "__annotations__": {"code": int}, "code": 1})


def test_what_is_no_network_is_one_line():
    class Forgotten(Layer):
        name = "forgotten"

    @dataclass(frozen=True)
    class Empty(Network):
        name = "empty"

    @dataclass(frozen=True)
    class Nothing(Layer):
        name = "nothing"

        def build(self, shape, classes, times):
            return None

    with pytest.raises(FlowbenchError, match=r"write @dataclass\(frozen=True\) above Forgotten"):
        Forgotten()
    with pytest.raises(FlowbenchError, match="network empty has no method build"):
        Backbone(Empty(), (1, 8, 8))
    with pytest.raises(FlowbenchError, match="network nothing returned NoneType, no nn"):
        Backbone(Nothing(), (1, 8, 8))
    with pytest.raises(FlowbenchError, match="network layer has no submodule `output`"):
        nets.last_weight(nets.Denoiser(Backbone(Layer(), (1, 8, 8)), 0.5))


def test_vectors_go_to_networks_that_take_them(tmp_path, monkeypatch, flowbench):
    path = tmp_path / "rows.py"
    path.write_text(ROWS)
    monkeypatch.setenv("FLOWBENCH_PLUGINS", f"{path}:{PATCHES}")
    made = plan("cfm", "rows,channels=16", "moons")
    assert made.data.std == plan("cfm", "small", "moons").data.std, "0.5 is for images"
    net = made.method.network(made.data)
    x, t = torch.randn(3, 2), torch.rand(3)
    assert net(x, t).shape == (3, 2) and torch.equal(net(x, t), net.model(x, t, None))
    code, output = flowbench("run", "cfm", "--dataset", "moons", "--network", "patches")
    assert code == 2 and "takes images, not vectors" in output.splitlines()[-1]


def test_two_of_one_name_are_refused_with_both(tmp_path, monkeypatch, flowbench):
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in paths:
        path.write_text(ROWS)
    monkeypatch.setenv("FLOWBENCH_PLUGINS", ":".join(map(str, paths)))
    code, output = flowbench("run", "cfm", *TINY, "--network", "rows")
    assert code == 2 and all(str(path) in output.splitlines()[-1] for path in paths)
    assert flowbench("networks", "adm")[0] == 0, "the others work"


def test_a_network_that_is_told_of_augmentation_gets_its_parameters():
    class Told(nn.Module):
        def forward(self, x, t, label, augment):
            return x + augment.sum()

    @dataclass(frozen=True)
    class Telling(Network):
        name = "telling"
        augment: int = 9

        def build(self, shape, classes, times):
            return Told()

    y = torch.cat([torch.zeros(2, 1), torch.full((2, 9), 0.5)], 1)
    x = torch.zeros(2, *toy().shape)
    assert torch.equal(Backbone(Telling(), toy().shape)(x, torch.ones(2), y), x + 9)

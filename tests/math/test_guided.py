"""OpenAI's U-Net: published sizes and names, attention's orders, and the same net as EDM's ADM."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from flowbench import FlowbenchError
from flowbench.imports.openai import converted
from flowbench.nets.backbone import Backbone
from flowbench.nets.guided import GROUPS, Attention, GuidedUNet, waves
from flowbench.nets.settings import ADM, OpenAI

PLAIN = OpenAI(channels=32, mult=(1, 2), blocks=1, attention=(4,))
IMAGENET = OpenAI(
    channels=192,
    mult=(1, 2, 3, 4),
    blocks=3,
    attention=(32, 16, 8),
    scale_shift=True,
    resblock_updown=True,
)


def random(net, scale=0.05):
    """The network with all parameters random: many start at zero, behind which nothing is seen."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, scale)
    return net.eval()


@pytest.mark.parametrize(
    "settings, shape, classes, times, parameters",
    [
        (OpenAI(), (3, 32, 32), 0, 1, 35_746_307),  # torchcfm for CIFAR-10: 35.75 M
        (IMAGENET, (3, 64, 64), 1000, 1, 295_899_267),
        (IMAGENET, (3, 64, 64), 1000, 2, 324_100_611),  # CTM's, told the end of a jump
    ],
)
def test_published_networks_have_their_number_of_parameters(
    settings, shape, classes, times, parameters
):
    with torch.device("meta"):
        net = GuidedUNet(settings, shape, classes, times)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_names_and_shapes_are_those_of_the_published_files():
    with torch.device("meta"):
        state = GuidedUNet(OpenAI(), (3, 32, 32)).state_dict()
    shapes = {
        "time_embed.2.weight": (512, 512),
        "input_blocks.0.0.weight": (128, 3, 3, 3),
        "input_blocks.3.0.op.weight": (128, 128, 3, 3),
        "input_blocks.4.0.skip_connection.weight": (256, 128, 1, 1),
        "input_blocks.4.1.qkv.weight": (768, 256, 1),
        "middle_block.1.proj_out.bias": (256,),
        "output_blocks.2.1.conv.weight": (256, 256, 3, 3),
        "output_blocks.8.2.conv.weight": (256, 256, 3, 3),
        "output_blocks.11.0.out_layers.3.weight": (128, 128, 3, 3),
        "out.2.weight": (3, 128, 3, 3),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_the_embedding_of_a_time_is_cosines_then_sines():
    t = torch.tensor([0.3, 250.0])
    expected = [
        [f(float(time) / 10_000 ** (i / 3)) for f in (math.cos, math.sin) for i in range(3)]
        for time in t
    ]
    torch.testing.assert_close(waves(t, 6), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_attention_is_a_softmax_over_pixels_in_each_head():
    torch.manual_seed(0)
    layer, x = random(Attention(64, 2, qkv_first=False), 0.3), torch.randn(1, 64, 2, 3)
    pixels = x.flatten(2)
    rows = layer.qkv(functional.group_norm(pixels, GROUPS, layer.norm.weight, layer.norm.bias))
    parts = []
    for head in range(2):
        q, k, v = rows[0, 96 * head : 96 * (head + 1)].split(32)
        parts.append(v @ (q.T @ k / math.sqrt(32)).softmax(1).T)
    expected = pixels + layer.proj_out(torch.cat(parts)[None])
    torch.testing.assert_close(layer(x), expected.reshape(x.shape), rtol=1e-4, atol=1e-4)
    layer.qkv_first = True  # the other order is another function
    assert not torch.allclose(layer(x), expected.reshape(x.shape), atol=1e-2)


@pytest.mark.parametrize("scale_shift, updown", [(False, False), (True, True), (True, False)])
def test_it_starts_at_zero_and_every_parameter_is_used(scale_shift, updown):
    torch.manual_seed(0)
    settings = OpenAI(
        channels=32,
        mult=(1, 2),
        blocks=1,
        attention=(4,),
        scale_shift=scale_shift,
        resblock_updown=updown,
    )
    net = Backbone(settings, (2, 8, 8), classes=3)
    x, t, y = torch.randn(2, 2, 8, 8), torch.rand(2), torch.tensor([0, 2])
    assert net(x, t, y).abs().max() == 0
    random(net)
    net(x, t, y).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert net.output is net.model.out[2]
    assert not torch.allclose(net(x, t, y), net(x, t + 0.5, y))
    assert not torch.allclose(net(x, t, y), net(x, t))


def test_a_second_time_adds_nothing_until_it_is_trained():
    torch.manual_seed(0)
    one, two = (Backbone(PLAIN, (1, 8, 8), classes=2, times=times) for times in (1, 2))
    random(one)
    missing, unexpected = two.eval().load_state_dict(one.state_dict(), strict=False)
    assert unexpected == [] and missing and all("second" in name for name in missing)
    x, t, y = torch.randn(2, 1, 8, 8), torch.rand(2, 2), torch.tensor([0, 1])
    torch.testing.assert_close(two(x, t, y), one(x, t[:, 0], y))
    random(two)
    assert not torch.allclose(two(x, t, y), two(x, t.flip(1), y))


@pytest.mark.parametrize("times", [1, 2])
def test_converted_to_the_names_of_adm_it_is_the_same_function(times):
    torch.manual_seed(0)
    theirs = OpenAI(
        channels=128,
        mult=(1, 2),
        blocks=1,
        attention=(4,),
        dropout=0.0,
        scale_shift=True,
        resblock_updown=True,
    )
    ours = ADM(channels=128, mult=(1, 2), blocks=1, attention=(4,), dropout=0.0, time_scale=1000)
    x, y = torch.randn(2, 3, 8, 8), torch.tensor([0, 4])
    t = torch.rand(2) if times == 1 else torch.rand(2, 2)
    outputs = []
    for qkv_first in (True, False):
        source = random(GuidedUNet(theirs, (3, 8, 8), 5, times, qkv_first), 0.1)
        named = {n.replace("_second", "_s"): p for n, p in source.state_dict().items()}
        net = Backbone(ours, (3, 8, 8), 5, times).eval()
        net.model.load_state_dict(dict(converted(named, ours, 8)))
        outputs.append((source(x, 1000 * t, functional.one_hot(y, 5).float()), net(x, t, y)))
    torch.testing.assert_close(*outputs[0], rtol=1e-4, atol=1e-4)
    # Only networks with the order of the consistency models may be converted.
    assert not torch.allclose(*outputs[1], rtol=1e-2, atol=1e-2)


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(FlowbenchError, match="cannot split 224 channels into 3 heads"):
        GuidedUNet(OpenAI(channels=32, mult=(7, 2), blocks=1, attention=(8,)), (1, 8, 8))

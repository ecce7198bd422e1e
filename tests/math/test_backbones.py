"""EDM's networks: sizes of the published ones, outputs of a reference, settings, invariances."""

import copy
import dataclasses
import json
import math

import pytest
import scipy.signal
import torch

from flowbench.nets import Denoiser, layers, settings
from flowbench.nets.backbone import Backbone, build, compile_blocks
from flowbench.nets.settings import ADM, NETWORKS, DDPMpp, NCSNpp, OpenAI, parse
from flowbench.records import FlowbenchError

SMALL = {"channels": 32, "mult": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.0}


def fill(net):
    """Numbers for all parameters that need no generator (specification of the golden values)."""
    for k, (name, parameter) in enumerate(sorted(net.named_parameters())):
        i = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
        value = torch.sin(0.1 * i + k).float().view(parameter.shape)
        if parameter.ndim >= 2:
            value = value * math.sqrt(2 / math.prod(parameter.shape[1:]))
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        parameter.data.copy_(value)
    for name, buffer in net.named_buffers():
        if name.endswith("freqs"):
            buffer.copy_(0.5 * torch.arange(1, len(buffer) + 1) / len(buffer))
    return net.eval()


def waves(side, batch=2, channels=3):
    b, c, h, w = torch.meshgrid(
        *(torch.arange(n) for n in (batch, channels, side, side)), indexing="ij"
    )
    return torch.cos(0.7 * b + 1.3 * c + 0.31 * h + 0.17 * w)


def small(cls=DDPMpp, classes=3, times=1, **changes):
    """A filled network for 8x8 images, of which no layer is zero."""
    return fill(Backbone(cls(**(SMALL | changes)), (3, 8, 8), classes, times))


def meta(cls, side, classes=0, times=1, **changes):
    with torch.device("meta"):
        return Backbone(cls(**changes), (3, side, side), classes, times)


@pytest.mark.parametrize(
    "cls, side, classes, times, changes, parameters, tensors",
    [
        (DDPMpp, 32, 0, 1, {}, 55_733_891, 425),
        (DDPMpp, 32, 10, 1, {}, 55_735_299, 427),
        (DDPMpp, 32, 0, 1, {"augment": 0}, 55_732_739, 424),
        (DDPMpp, 32, 10, 1, {"augment": 0}, 55_734_147, 426),
        (NCSNpp, 32, 0, 1, {}, 56_397_827, 432),
        (NCSNpp, 32, 10, 1, {}, 56_400_643, 434),
        (DDPMpp, 64, 0, 1, {"mult": (1, 2, 2, 2)}, 61_805_571, 553),
        (NCSNpp, 64, 0, 1, {"mult": (1, 2, 2, 2)}, 62_761_091, 563),
        (ADM, 64, 1000, 1, {}, 295_899_267, 553),
        # Kim et al.'s networks with two times
        (DDPMpp, 32, 0, 2, {"augment": 0}, 60_395_267, None),
        (DDPMpp, 32, 10, 2, {"augment": 0}, 60_396_675, None),
        (ADM, 64, 1000, 2, {}, 324_100_611, None),
    ],
)
def test_networks_have_the_published_sizes(cls, side, classes, times, changes, parameters, tensors):
    net = meta(cls, side, classes, times, **changes)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert tensors in (None, len(net.state_dict()))


@pytest.mark.parametrize(
    "cls, side, mult, blocks, attention, head",
    [
        (DDPMpp, 32, (2, 2, 2), (14, 19), (4, 2), {16: {1}, 8: {1}}),
        (NCSNpp, 32, (2, 2, 2), (14, 19), (4, 2), {16: {1}, 8: {1}}),
        (DDPMpp, 64, (1, 2, 2, 2), (19, 25), (4, 2), {16: {1}, 8: {1}}),
        (ADM, 64, (1, 2, 3, 4), (15, 21), (9, 13), {32: {6}, 16: {9}, 8: {12}}),
    ],
)
def test_blocks_attention_and_heads_are_where_the_papers_have_them(
    cls, side, mult, blocks, attention, head
):
    model = meta(cls, side, mult=mult).model
    halves, heads = [], {}
    for half in (model.enc, model.dec):
        found = {n: b for n, b in half.items() if isinstance(b, layers.UNetBlock)}
        halves.append(found)
        for name, block in found.items():
            if block.heads:
                heads.setdefault(int(name.split("x")[0]), set()).add(block.heads)
    assert tuple(len(half) for half in halves) == blocks
    assert tuple(sum(b.heads > 0 for b in half.values()) for half in halves) == attention
    assert heads == head


GOLDEN = [  # F's mean, mean of |F|, F[0, 0, 0, :4], D[0, 0, 0, :4], D[1, 2, -1, -3:]
    (
        *(DDPMpp, 8, 32, (1, 2), 1, 4, 0, 0, 749_891, 146),
        [-0.039588, 0.269206, 0.24995, 0.46446, 0.49614, 0.30773],
        [0.58837, 0.65700, 0.64679, 0.54517, 0.17391, 0.18732, 0.13358],
    ),
    (
        *(DDPMpp, 8, 32, (1, 2), 1, 4, 3, 9, 750_307, 149),
        [-0.024368, 0.277171, 0.35795, 0.64957, 0.74021, 0.56291],
        [0.62655, 0.72245, 0.73308, 0.63539, 0.21452, 0.26752, 0.20300],
    ),
    (
        *(NCSNpp, 8, 32, (1, 2), 1, 4, 0, 0, 754_883, 150),
        [-0.031209, 0.252507, -0.23919, -0.24626, -0.09970, 0.08817],
        [0.41543, 0.40573, 0.43613, 0.46754, -0.31411, -0.25963, -0.12402],
    ),
    (
        *(ADM, 8, 64, (1, 2), 1, 4, 3, 0, 3_294_147, 149),
        [0.023517, 0.786704, 0.50600, 0.67055, 0.60095, 0.50463],
        [0.67890, 0.72987, 0.68385, 0.61478, -0.11287, -0.14712, -0.07083],
    ),
    (
        *(DDPMpp, 16, 32, (1, 2, 2), 2, 8, 0, 0, 1_754_147, 280),
        [-0.059187, 0.345434, 0.01337, 0.05273, 0.08461, 0.04000],
        [0.50473, 0.51143, 0.50129, 0.45051, -0.03917, -0.03965, -0.03490],
    ),
    (
        *(DDPMpp, 32, 64, (2, 2, 2), 2, 16, 10, 0, 8_797_891, 282),
        [-0.067646, 0.711407, 0.14172, 0.30612, 0.43053, 0.49167],
        [0.55011, 0.60102, 0.62359, 0.61020, 0.11505, 0.13815, 0.10647],
    ),
]


@pytest.mark.parametrize(
    "cls, side, channels, mult, blocks, attention, classes, augment, parameters, tensors, f, d",
    GOLDEN,
    ids=range(len(GOLDEN)),
)
def test_outputs_are_those_of_the_reference(
    cls, side, channels, mult, blocks, attention, classes, augment, parameters, tensors, f, d
):
    chosen = cls(channels, mult, blocks, (attention,), augment=augment)
    net = fill(Backbone(chosen, (3, side, side), classes))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors
    x, sigma = waves(side), torch.tensor([0.5, 2.0])
    y = torch.tensor([0, 1]) if classes else None
    if augment:
        y = torch.tensor([[k, *(0.1 * i for i in range(1, 10))] for k in (0, 1)])
    with torch.no_grad():
        denoised = Denoiser(net, 0.5)(x, sigma, y)
        scale = (sigma.square() + 0.25).rsqrt()[:, None, None, None]
        raw = net(x * scale, sigma.log() / 4, y)
    close = {"rtol": 0, "atol": 2e-4}
    seen = torch.cat([raw.mean()[None], raw.abs().mean()[None], raw[0, 0, 0, :4]])
    torch.testing.assert_close(seen, torch.tensor(f), **close)
    seen = torch.cat([denoised[0, 0, 0, :4], denoised[1, 2, -1, -3:]])
    torch.testing.assert_close(seen, torch.tensor(d), **close)


def test_attention_is_softmax_with_queries_keys_and_values_innermost():
    torch.manual_seed(0)
    qkv = torch.randn(2, 3 * 8, 3, 3, dtype=torch.float64)
    q, k, v = qkv.reshape(2 * 2, 4, 3, 9).unbind(2)  # two heads of four channels
    weights = (torch.einsum("bcq,bck->bqk", q, k) / 4**0.5).softmax(2)
    explicit = torch.einsum("bqk,bck->bcq", weights, v).reshape(2, 8, 3, 3)
    torch.testing.assert_close(layers.attend(qkv, 2), explicit)
    other = qkv.unflatten(1, (2, 4, 3)).permute(0, 1, 3, 2, 4, 5).reshape(qkv.shape)
    assert not torch.allclose(layers.attend(other, 2), explicit), "the order of channels matters"


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_resampling_is_zero_stuffing_or_decimation_behind_the_filter(taps):
    torch.manual_seed(0)
    x, width = torch.randn(1, 1, 8, 8, dtype=torch.float64), len(taps)
    kernel = layers.Conv2d(1, 1, 0, layers.Init("xavier"), "up", taps).double().resample_filter
    assert kernel.sum() == pytest.approx(1), "a constant stays what it is"
    stuffed = torch.zeros(16, 16, dtype=torch.float64)
    stuffed[::2, ::2] = x[0, 0]
    crop = slice((width - 1) // 2, (width - 1) // 2 + 16)
    up = scipy.signal.convolve2d(stuffed, 4 * kernel[0, 0])[crop, crop]
    down = scipy.signal.convolve2d(x[0, 0], kernel[0, 0])[width // 2 :: 2, width // 2 :: 2][:4, :4]
    torch.testing.assert_close(layers.resample(x, kernel, "up")[0, 0], torch.from_numpy(up))
    torch.testing.assert_close(layers.resample(x, kernel, "down")[0, 0], torch.from_numpy(down))


def test_keys_are_those_of_published_checkpoints():
    net = Denoiser(meta(DDPMpp, 32, classes=10), 0.5)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert shapes["net.model.dec.16x16_block4.qkv.weight"] == (768, 256, 1, 1)
    assert shapes["net.model.enc.32x32_conv.weight"] == (128, 3, 3, 3)
    assert shapes["net.model.map_label.weight"] == (128, 10)
    assert shapes["net.model.map_augment.weight"] == (128, 9)
    assert shapes["net.model.enc.16x16_down.skip.weight"] == (256, 256, 1, 1)
    assert shapes["net.model.enc.16x16_down.skip.resample_filter"] == (1, 1, 2, 2)
    assert shapes["net.model.dec.8x8_in0.proj.bias"] == (256,)
    assert "net.model.dec.8x8_in1.qkv.weight" not in shapes
    assert shapes["net.model.dec.32x32_aux_conv.weight"] == (3, 256, 3, 3)
    assert net.get_parameter("net.output.weight").shape == (3, 256, 3, 3)
    filtered = meta(NCSNpp, 32).state_dict()
    assert filtered["model.map_noise.freqs"].shape == (128,)
    assert filtered["model.enc.16x16_aux_residual.resample_filter"].shape == (1, 1, 4, 4)
    assert filtered["model.enc.8x8_aux_residual.weight"].shape == (256, 256, 3, 3)
    adm = meta(ADM, 64, classes=1000)
    names = adm.state_dict()
    assert names["model.map_label.weight"].shape == (768, 1000)
    assert "model.map_label.bias" not in names and "model.map_augment.weight" not in names
    assert "model.enc.32x32_down.skip.weight" not in names
    assert names["model.enc.32x32_down.skip.resample_filter"].shape == (1, 1, 2, 2)
    assert names["model.enc.32x32_down.affine.weight"].shape == (2 * 192, 768)
    assert adm.get_parameter("output.weight") is adm.model.out_conv.weight


@pytest.mark.parametrize("cls", [DDPMpp, NCSNpp, ADM])
def test_a_second_time_changes_nothing_at_the_start_and_something_after(cls):
    torch.manual_seed(0)
    one = small(cls)
    two = Backbone(one.settings, (3, 8, 8), 3, times=2).eval()
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert unexpected == [] and missing and all("second" in name for name in missing)
    x, y, t, s = waves(8), torch.tensor([2, 0]), torch.tensor([0.3, 0.9]), torch.tensor([0.1, 0.2])
    both = torch.stack([t, s], 1)
    with torch.no_grad():
        torch.testing.assert_close(two(x, both, y), one(x, t, y), rtol=0, atol=1e-6)
        for name, parameter in two.named_parameters():
            if "affine_second" in name:
                assert not parameter.any()
                parameter.normal_(0, 0.1)
        assert not torch.allclose(two(x, both, y), two(x, torch.stack([t, t], 1), y))
        assert not torch.allclose(two(x, both, y), two(x, torch.stack([s, s], 1), y))
        with pytest.raises(RuntimeError):
            two(x, t, y)


@pytest.mark.parametrize("cls", [DDPMpp, NCSNpp, ADM])
def test_a_network_starts_as_almost_nothing_behind_its_skips(cls):
    torch.manual_seed(0)
    net = Backbone(cls(**SMALL), (3, 8, 8), 3).eval()
    assert net(waves(8), torch.zeros(2)).abs().max() < 1e-3
    block = net.model.enc["8x8_block0"]
    fans = (9 * 32, 9 * 32) if cls is not ADM else (9 * 32 * 3, 9 * 32 * 3)  # kaiming / sqrt(3)
    bound = (6 / sum(fans)) ** 0.5
    assert 0.95 * bound < block.conv0.weight.abs().max() <= bound
    assert block.conv1.weight.abs().max() <= bound * 1e-5
    assert block.conv0.bias.any() == (cls is ADM)


@pytest.mark.parametrize("cls", [DDPMpp, ADM])
@pytest.mark.parametrize("precision, error", [("bfloat16", 0.04), ("float16", 0.01)])
def test_half_precision_is_close_and_returns_float32(cls, precision, error):
    full = small(cls)
    half = small(cls, precision=precision)
    x, t = waves(8), torch.tensor([-0.5, 0.5])
    with torch.no_grad():
        expected, found = full(x, t), half(x, t)
    assert found.dtype == torch.float32 and next(half.parameters()).dtype == torch.float32
    assert 0 < (found - expected).norm() < error * expected.norm()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(full(x, t), expected)  # a network's precision is its own


@pytest.mark.parametrize("cls", [DDPMpp, ADM])
def test_classes_come_as_numbers_or_beside_augment_parameters(cls):
    net, x, t = small(cls, augment=9), waves(8), torch.tensor([-0.5, 0.5])
    none, classes = torch.tensor([-1, -1]), torch.tensor([0, 2])

    def told(classes, value=0.0):
        return torch.cat([classes[:, None].float(), torch.full((2, 9), value)], 1)

    with torch.no_grad():
        plain, labelled = net(x, t), net(x, t, classes)
        assert torch.equal(net(x, t, none), plain)
        assert torch.equal(net(x, t, told(none)), plain)
        assert torch.equal(net(x, t, told(classes)), labelled)
        assert not torch.allclose(labelled, plain)
        assert not torch.allclose(labelled, net(x, t, classes.flip(0)))
        assert not torch.allclose(labelled, net(x, t, told(classes, 0.5)))
        assert not torch.allclose(plain, net(x, t, told(none, 0.5)))
        unlabelled = small(cls, classes=0)
        assert torch.equal(unlabelled(x, t, classes), unlabelled(x, t))


@pytest.mark.parametrize("cls", [DDPMpp, NCSNpp, ADM])
def test_rows_are_independent_and_dropout_is_off_when_evaluated(cls):
    net = small(cls, dropout=0.5)
    x, t, y = waves(8, 4), torch.linspace(-1, 1, 4), torch.tensor([0, 1, 2, -1])
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        first = net(x, t, y)
        torch.testing.assert_close(net(x[order], t[order], y[order]), first[order])
        torch.testing.assert_close(net(x[1:2], t[1:2], y[1:2]), first[1:2])
        assert torch.equal(net(x, t, y), first) and first.is_contiguous()
        net.train()
        assert not torch.allclose(net(x, t, y), net(x, t, y))


@pytest.mark.parametrize("cls", [DDPMpp, NCSNpp, ADM])
def test_gradients_reach_every_parameter(cls):
    net = small(cls, times=2, augment=9).train()  # filled, as at the start some paths are zero
    y = torch.cat([torch.tensor([[0.0], [2.0]]), torch.full((2, 9), 0.3)], 1)
    net(waves(8), torch.tensor([[0.3, 0.1], [0.9, 0.2]]), y).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_time_scale_multiplies_the_time():
    x, t = waves(8), torch.tensor([-0.5, 0.5])
    with torch.no_grad():
        assert torch.equal(small(ADM, time_scale=1000.0)(x, t), small(ADM)(x, 1000 * t))


@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 8, 4), (16,), (1, 2, 2)])
def test_images_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(FlowbenchError, match=r"multiple of 4, not [\dx]+: shorten mult"):
        build(DDPMpp(), shape)


@pytest.mark.parametrize("mult", [(1, 2), (2, 2), (1, 3)])
def test_exactly_the_widths_that_fit_can_be_built(mult):
    chosen, fitting = DDPMpp(**(SMALL | {"mult": mult})), set()
    for channels in range(4, 260, 4):
        if chosen.fits(channels):
            meta(DDPMpp, 8, **(SMALL | {"mult": mult, "channels": channels}))
            fitting.add(channels)
            continue
        forced = copy.copy(chosen)
        object.__setattr__(forced, "channels", channels)
        with pytest.raises(ValueError, match="divisible"), torch.device("meta"):
            build(forced, (3, 8, 8))
    assert {32, 64, 128, 256} <= fitting and len(fitting) < 64
    assert not chosen.fits(130), "two halves of an embedding and groups of four"


@pytest.mark.parametrize(
    "word, expected",
    [
        ("ddpmpp", DDPMpp()),
        ("adm,channels=64,mult=1-2,blocks=1", ADM(64, (1, 2), 1)),
        ("ncsnpp,dropout=0.5,precision=bfloat16", NCSNpp(dropout=0.5, precision="bfloat16")),
        ("openai,attention=,resblock_updown=True", OpenAI(attention=(), resblock_updown=True)),
    ],
)
def test_words_and_json_say_all_settings(word, expected):
    assert parse(word) == expected
    assert settings.word(expected) == word
    assert settings.from_json(json.loads(json.dumps(settings.to_json(expected)))) == expected


def test_data_sets_get_the_networks_of_the_papers():
    from flowbench.data.catalogue import NETWORKS as CHOSEN

    assert settings.parse(CHOSEN["afhq64"]) == DDPMpp(mult=(1, 2, 2, 2), dropout=0.25)
    assert settings.parse(CHOSEN["ffhq64"]) == DDPMpp(mult=(1, 2, 2, 2), dropout=0.05)
    assert settings.parse(CHOSEN["imagenet64"]) == ADM()
    assert all(cls().name == name for name, cls in NETWORKS.items())


@pytest.mark.parametrize(
    "word, said",
    [
        ("ddpm", "did you mean ddpmpp"),
        ("adm,channel=3", "did you mean channels"),
        ("adm,channels=-3", "positive channels"),
        ("adm,mult=", "positive channels"),
        ("adm,mult=1,2", "a list as 1-2-2"),
        ("adm,mult=1-x", "option mult"),
        ("adm,dropout=nan", "must be finite"),
        ("adm,dropout=1", "dropout in"),
        ("adm,augment=3", "augment=0 or augment=9"),
        ("adm,time_scale=0", "time_scale above 0"),
        ("ddpmpp,precision=half", "float32 | bfloat16 | float16"),
        ("ddpmpp,channels=66", "type channels=64"),
        ("ddpmpp,channels=2", "type channels=4"),
        ("adm,channels=224", "type channels=192"),  # three heads of its 224 are not whole
        ("openai,channels=100", "type channels=96"),
        ("openai,heads=0", "needs heads"),
        ("openai,channels=32,mult=1", "equal heads"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(word, said):
    with pytest.raises(FlowbenchError) as caught:
        parse(word)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_settings_of_a_file_are_checked_as_words_are():
    for wrong in ({}, {"name": "adm", "width": 3}, {"name": "adm", "channels": "many"}):
        with pytest.raises(FlowbenchError):
            settings.from_json(wrong)
    with pytest.raises(FlowbenchError):
        dataclasses.replace(ADM(), channels=66)


@pytest.mark.parametrize("cls", [DDPMpp, NCSNpp, ADM])
def test_a_network_is_one_graph_for_the_compiler(cls):
    net = small(cls, times=2, augment=9, dropout=0.1, precision="bfloat16").train()
    net.model.compile(fullgraph=True, backend="eager")  # raises where it would have to break
    net(waves(8), torch.tensor([[0.3, 0.1], [0.9, 0.2]]), torch.ones(2, 10)).sum().backward()
    assert net.output.weight.grad.isfinite().all()


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_with_the_same_names():
    net = small(DDPMpp, channels=8, mult=(1,), attention=(), augment=0)
    denoiser = Denoiser(net, 0.5)
    x, sigma = waves(8), torch.tensor([0.5, 2.0])
    names = list(denoiser.state_dict())
    with torch.no_grad():
        expected = denoiser(x, sigma)
        compile_blocks(denoiser)
        torch.testing.assert_close(denoiser(x, sigma), expected, rtol=0, atol=1e-5)
    assert net.model._compiled_call_impl is not None
    assert list(denoiser.state_dict()) == names
    copied = copy.deepcopy(denoiser)
    assert copied.net.model._compiled_call_impl is None
    assert torch.equal(copied(x, sigma), expected)

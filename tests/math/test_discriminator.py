"""The projected discriminator: shapes, what learns, what is kept, what it looks at."""

import copy
from pathlib import Path

import loss_weights
import pytest
import torch
from torch.nn import functional
from torchvision.transforms.functional import normalize

from flowbench.losses.adversarial import Rival, discriminator_loss
from flowbench.losses.discriminator import Discriminator, Head
from flowbench.losses.features import load
from flowbench.losses.inputs import IMAGENET
from flowbench.losses.projection import Projection
from flowbench.records import Budget, FlowbenchError
from flowbench.training import Run

HEADS = 2_829_120 + 2_763_392 + 2_631_936 + 2_106_880  # parameters at each map


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def file(folder) -> Path:
    return loss_weights.efficientnet(folder)


def build(file: Path, classes: int = 0, seed: int = 0, size: int = 224) -> Discriminator:
    return Discriminator({"efficientnet": file}, classes, seed, size)


def images(n: int = 2, channels: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, channels, side, side, generator=random) - 1


def at(seed: int, judge: Discriminator, *inputs) -> torch.Tensor:
    """Logits with the augmentation of a seed."""
    torch.manual_seed(seed)
    return judge(*inputs)


def learned(judge) -> int:
    return sum(p.numel() for p in judge.parameters() if p.requires_grad)


def test_sixteen_logits_of_each_head(file):
    judge = build(file)
    assert judge(images()).shape == (2, 64)
    sizes = [sum(p.numel() for p in h.parameters()) for h in judge.branches["efficientnet"].heads]
    assert sizes == [2_829_120, 2_763_392, 2_631_936, 2_106_880]
    assert learned(judge) == HEADS == 10_331_328
    maps = judge._frozen["efficientnet"](images())
    assert [tuple(m.shape[1:]) for m in maps] == [
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]
    projected = judge.branches["efficientnet"].projection(maps)
    assert [tuple(m.shape[1:]) for m in projected] == [
        (64, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
    ]


def test_features_are_those_of_the_library(file):
    """Prepared by torchvision, the stages taken one by one."""
    found = load("efficientnet", file)(images())
    net = load("efficientnet", file).network
    h = normalize((images() + 1) / 2, [0.5] * 3, [0.5] * 3)
    h = functional.interpolate(h, (224, 224), mode="bilinear", align_corners=False)
    h, expected = net.bn1(net.conv_stem(h)), []
    for i, block in enumerate(net.blocks):
        h = block(h)
        if i in (1, 2, 4, 6):
            expected.append(h)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.std().item())


@pytest.mark.parametrize("flat", [False, True])
def test_projection_is_its_definition(flat):
    """In the order of the papers: add, interpolate, convolve."""
    torch.manual_seed(0)
    channels, sides = ((768,) * 4, (16,) * 4) if flat else ((24, 40, 112, 320), (4, 8, 16, 32))
    projection = Projection(channels, sides).double()
    assert not any(p.requires_grad for p in projection.parameters())
    image = 64
    maps = [
        torch.randn(2, n, image // side, image // side, dtype=torch.float64)
        for n, side in zip(channels, sides, strict=True)
    ]
    found, h = projection(maps), None
    for i in (3, 2, 1, 0):
        mixed = projection.across_channels[i](projection.resized[i](maps[i]))
        h = mixed if h is None else h + mixed
        h = functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
        h = projection.across_scales[i](h)
        assert h.shape[2] == image // 2 >> i
        torch.testing.assert_close(found[i], h)


def test_gradients_reach_images_heads_and_embedding_only(file):
    judge = build(file, classes=3)
    x = images().requires_grad_()
    judge(x, torch.tensor([0, 2])).square().sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    for name, parameter in judge.named_parameters():
        moves = ".heads." in name or name == "embedding.weight"
        assert parameter.requires_grad == moves, name
        assert (parameter.grad is not None) == moves, name
        cancelled = ".body." in name and name.endswith("bias") and ".0." in name  # by the norm
        assert not moves or cancelled or parameter.grad.norm() > 0, name
    assert judge.embedding.weight.grad.norm(dim=1).ne(0).tolist() == [True, False, True]
    frozen = judge._frozen["efficientnet"]
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())


def test_a_step_moves_the_heads_only(file):
    judge = build(file)
    frozen = judge._frozen["efficientnet"]
    networks = {name: value.clone() for name, value in frozen.state_dict().items()}
    before = {name: value.clone() for name, value in judge.named_parameters()}
    judge.train()
    assert not any(module.training for module in frozen.modules())
    optimizer = torch.optim.SGD([p for p in judge.parameters() if p.requires_grad], lr=1.0)
    judge(images()).mean().backward()
    optimizer.step()
    moved = {
        name for name, value in judge.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved and all(".heads." in name for name in moved)
    assert all(torch.equal(networks[name], value) for name, value in frozen.state_dict().items())


def test_state_has_heads_and_projections_but_no_networks(file):
    first, second = build(file, seed=1, classes=4), build(file, seed=2, classes=4)
    labels = torch.tensor([3, 1])
    first.train()(images(), labels)  # its spectral norms move
    state = first.eval().state_dict()
    assert {name.split(".")[2] for name in state if name != "embedding.weight"} == {
        "projection",
        "heads",
    }
    assert not any("running" in name for name in state)  # batch norms keep no statistics
    expected = at(0, first, images(), labels)
    assert not torch.allclose(at(0, second.eval(), images(), labels), expected)  # control
    second.load_state_dict(state)
    assert torch.equal(at(0, second, images(), labels), expected)
    with pytest.raises(RuntimeError, match="Missing key"):
        second.load_state_dict({name: v for name, v in state.items() if "projection" not in name})


def test_evaluation_leaves_no_trace(file):
    judge = build(file)
    state = {name: value.clone() for name, value in judge.eval().state_dict().items()}
    judge(images())
    assert all(torch.equal(state[name], value) for name, value in judge.state_dict().items())
    judge.train()(images())  # control: the power iteration of the spectral norms
    assert any(not torch.equal(state[name], value) for name, value in judge.state_dict().items())


def test_seed_decides_and_the_global_generator_is_left_alone(file):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = build(file), build(file), build(file, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    names = list(first.state_dict())
    assert all(torch.equal(first.state_dict()[n], again.state_dict()[n]) for n in names)
    weight = "branches.efficientnet.projection.across_scales.0.weight"
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_weights_have_spectral_norm_one(file):
    judge = build(file)
    weights = [m.weight for m in judge.modules() if type(m).__name__ == "ParametrizedConv2d"]
    assert len(weights) == 4 + 3 + 2 + 1 + 4
    for weight in weights:
        rows = weight.detach().flatten(1)
        assert torch.linalg.eigvalsh(rows @ rows.T)[-1].item() == pytest.approx(1, rel=0.1)


def test_logits_depend_on_the_label(file):
    judge = build(file, classes=2).eval()
    found = [at(0, judge, images(), torch.tensor(labels)) for labels in ([0, 0], [0, 1])]
    assert found[0].shape == (2, 64)
    assert torch.equal(found[0][0], found[1][0]) and not torch.allclose(found[0][1], found[1][1])
    with pytest.raises(FlowbenchError, match="conditional: it needs labels"):
        judge(images())


def test_conditional_head_is_its_definition():
    torch.manual_seed(0)
    head = Head(256, 16, classes=5).eval()
    x, embedding = torch.randn(3, 256, 14, 14), torch.randn(3, 320)
    code = embedding @ head.code.weight.T / 320**0.5 + head.code.bias
    code = 2**0.5 * torch.where(code > 0, code, 0.2 * code)
    h = head.last(head.body(x))
    assert h.shape == (3, 64, 4, 4)
    expected = torch.einsum("bchw,bc->bhw", h, code).flatten(1) / 8
    torch.testing.assert_close(head(x, embedding), expected)


def test_images_are_augmented_in_both_modes(file):
    judge = build(file, size=128).eval()
    assert judge(images()).shape == (2, 4)  # at this size each head has one place
    assert torch.equal(at(0, judge, images()), at(0, judge, images()))
    assert not torch.allclose(at(0, judge, images()), at(1, judge, images()))


def test_one_channel_is_repeated(file):
    judge, grey = build(file).eval(), images(2, 1)
    expected = at(0, judge, grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(at(0, judge, grey), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(FlowbenchError, match="of shape 2x32x32"):
        judge(images(2, 2))


def test_all_parts_move_together(file):
    judge = build(file, size=128).double()
    parts = (judge, judge._frozen["efficientnet"])
    floats = [p for part in parts for p in part.state_dict().values() if p.is_floating_point()]
    assert {p.dtype for p in floats} == {torch.float64}


def test_it_learns_as_a_rival_and_goes_on_from_its_state(file):
    """Frozen networks are no part of what is planned, counted, or kept."""

    def rival(seed):
        judge = build(file, seed=seed, size=128)

        def loss(real, fake):
            return discriminator_loss(judge(real), judge(fake))

        return judge, Rival(judge, loss, Run(Budget(9, 4)))

    batches = [(images(4, seed=i), images(4, seed=i + 9)) for i in range(3)]
    judge, player = rival(0)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    player.step(batches[0])
    state = copy.deepcopy(player.state_dict())
    moved = {name for name, value in judge.state_dict().items() if (value != before[name]).any()}
    assert moved and all(".heads." in name for name in moved)
    other, again = rival(1)
    again.load_state_dict(state)
    for each in (player, again):
        torch.manual_seed(0)
        values = [each.step(batch) for batch in batches[1:]]
    assert all(value.isfinite() for value in values)
    assert all(torch.equal(v, other.state_dict()[name]) for name, v in judge.state_dict().items())


def test_half_precision_is_of_the_networks_only(file):
    exact = build(file).eval()
    half = Discriminator({"efficientnet": file}, 0, 0, dtype=torch.bfloat16).eval()
    found, expected = at(0, half, images()), at(0, exact, images())
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    other = at(0, build(file, seed=1).eval(), images())  # control
    assert (found - expected).norm() < 0.3 * expected.norm() < (other - expected).norm()


def test_other_files_names_and_sizes_are_refused(file, folder):
    def message(features, size=224):
        with pytest.raises(FlowbenchError) as caught:
            Discriminator(features, 0, 0, size)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "name deit, efficientnet" in message({})
    assert "did you mean efficientnet?" in message({"efficientnet0": file})
    wrong = loss_weights.vgg16(folder)
    assert "give tf_efficientnet_lite0-0aa007d2.pth" in message({"efficientnet": wrong})
    assert "give deit_base_distilled_patch16_224-df68dfff.pth" in message({"deit": file})
    for size in (96, 100, 230):
        assert "take 224" in message({"efficientnet": file}, size)


@pytest.mark.slow
def test_two_networks_with_deit(file, folder):
    files = {"efficientnet": file, "deit": loss_weights.deit(folder)}
    judge = Discriminator(files, 10, 0)
    x = images().requires_grad_()
    logits = judge(x, torch.tensor([0, 1]))
    assert logits.shape == (2, 128)
    logits[:, :64].sum().backward()  # names are sorted: of DeiT
    assert x.grad.norm() > 0
    unconditional = Discriminator(files, 0, 0)
    assert learned(unconditional) == 2 * HEADS
    swapped = Discriminator(dict(reversed(files.items())), 0, 0)
    assert torch.equal(at(0, unconditional, images()), at(0, swapped, images()))
    with pytest.raises(FlowbenchError, match="deit does not take images of 256 pixels: take 224"):
        Discriminator(files, 0, 0, 256)


@pytest.mark.slow
def test_deits_features_are_those_of_the_library(folder):
    """What hooks on the blocks of timm's own network see."""
    features, seen = load("deit", loss_weights.deit(folder)), []
    found = features(images())
    blocks = features.network.blocks
    hooks = [
        blocks[i].register_forward_hook(lambda *call: seen.append(call[2])) for i in (2, 5, 8, 11)
    ]
    h = normalize((images() + 1) / 2, *IMAGENET)
    features.network(functional.interpolate(h, (224, 224), mode="bilinear"))
    assert [hook.remove() for hook in hooks] and len(seen) == 4
    for ours, theirs in zip(found, seen, strict=True):
        assert ours.shape == (2, 768, 14, 14)
        expected = theirs[:, 2:].mT.unflatten(2, (14, 14))  # without class and distillation token
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)

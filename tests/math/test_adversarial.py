"""Adversarial losses, their balance with a reconstruction loss, and the rival's turns."""

import copy
import math

import pytest
import torch
from torch import nn

from flowbench.losses.adversarial import (
    Rival,
    adaptive_weight,
    balanced,
    discriminator_loss,
    generator_loss,
)
from flowbench.records import Budget, FlowbenchError
from flowbench.training import Run


def test_hinge_where_the_discriminator_is_zero():
    zero = torch.zeros(5, 64)
    assert discriminator_loss(zero, zero).item() == 2 and generator_loss(zero).item() == 0
    real, fake = torch.tensor([[3.0, 0.5]]), torch.tensor([[-2.0, 0.25]])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 / 2 + 1.25 / 2)
    assert generator_loss(fake).item() == pytest.approx(1.75 / 2)


def test_bce_is_the_log_loss():
    real, fake = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).double()
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    entropy = nn.functional.binary_cross_entropy_with_logits
    expected = entropy(real, ones) + entropy(fake, zeros)
    torch.testing.assert_close(discriminator_loss(real, fake, "bce"), expected)
    torch.testing.assert_close(generator_loss(fake, "bce"), entropy(fake, ones))
    assert discriminator_loss(zeros, zeros, "bce").item() == pytest.approx(2 * math.log(2))
    with pytest.raises(FlowbenchError, match="no adversarial loss 'log'"):
        generator_loss(fake, "log")


class Generator(nn.Module):
    """Two layers, the last of which balances the losses."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.to(torch.float64)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator()


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def lines(output, scale=1.0):
    return scale * (output - 0.3).square().mean()


def adversarial(output, scale=1.0):
    return scale * torch.sin(output * torch.arange(1, 5)).mean()


def gradients(loss, net):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def ratio(net):
    """The adaptive weight, from its definition."""
    norms = [
        torch.autograd.grad(loss(net(X)), net.last.weight)[0].norm()
        for loss in (lines, adversarial)
    ]
    return norms[0] / (norms[1] + 1e-4)


def test_adaptive_weight_is_its_definition(generator):
    output = generator(X)
    first, second, weight = lines(output), adversarial(output), generator.last.weight
    found = adaptive_weight(first, second, weight)
    torch.testing.assert_close(found, ratio(generator))
    assert found.ndim == 0 and not found.requires_grad and 0.01 < found.item() < 10
    assert adaptive_weight(first, second / 1e6, weight) == 10
    assert adaptive_weight(first, second * 1e6, weight) == 0.01
    size = torch.autograd.grad(first, weight, retain_graph=True)[0].norm()
    torch.testing.assert_close(adaptive_weight(first, 0 * second, weight, 0, 1e4), size / 1e-4)
    (first + found * second).backward()  # the graphs are kept


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_balanced_is_what_autograd_makes_of_the_whole(generator, share):
    factor = ratio(generator)
    output = generator(X)
    expected = share * lines(output) + factor * adversarial(output)
    wanted = gradients(expected, generator)
    output = generator(X)
    found = balanced(output, lines(output), adversarial(output), generator.last.weight, share)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(found, generator), wanted, rtol=1e-9, atol=1e-12)


def test_swapped_losses_are_seen(generator):
    """Controls of the test above: other losses, another factor, another layer."""
    output = generator(X)
    wanted = gradients(0.5 * lines(output) + ratio(generator) * adversarial(output), generator)

    def apart(found):
        return ((gradients(found, generator) - wanted).norm() / wanted.norm()).item()

    output = generator(X)
    assert apart(0.5 * lines(output) + adversarial(output) / ratio(generator)) > 0.05
    output = generator(X)
    assert apart(balanced(output, adversarial(output), lines(output), generator.last.weight)) > 0.05
    output = generator(X)
    assert (
        apart(balanced(output, lines(output), adversarial(output), generator.first.weight)) > 0.01
    )


def test_the_size_of_the_adversarial_loss_does_not_matter(generator):
    def total(scale):
        output = generator(X)
        losses = lines(output), adversarial(output, scale)
        return gradients(balanced(output, *losses, generator.last.weight, eps=0), generator)

    torch.testing.assert_close(total(10), total(1), rtol=1e-9, atol=1e-12)


def test_norms_on_the_layer_are_equal(generator):
    weight = generator.last.weight
    along = torch.autograd.grad(lines(generator(X)), weight)[0]
    output = generator(X)
    total = balanced(output, lines(output), adversarial(output), weight, 0.5, eps=0)
    rest = torch.autograd.grad(total, weight)[0] - 0.5 * along
    assert rest.norm().item() == pytest.approx(along.norm().item())


@pytest.mark.parametrize("scale", [1e-3, 1e-24])
def test_tiny_gradients_are_balanced_too(generator, scale):
    """Squares of these are zero in float32, where norms would be zero as well."""
    net = generator.float()

    def total(scale):
        output = net(X.float())
        losses = lines(output, scale), adversarial(output, scale)
        return gradients(balanced(output, *losses, net.last.weight, eps=0), net)

    torch.testing.assert_close(total(scale) / scale, total(1.0), rtol=1e-4, atol=1e-6)


def test_no_gradient_at_all_is_no_error(generator):
    output = generator(X)
    value = balanced(output, 0 * lines(output), 0 * adversarial(output), generator.last.weight)
    assert value.item() == 0 and (gradients(value, generator) == 0).all()


def test_output_may_come_from_autocast(generator):
    output = generator(X)
    total = 0.5 * lines(output) + ratio(generator) * adversarial(output)
    expected = gradients(total, generator)
    net = generator.float()
    with torch.autocast("cpu", torch.bfloat16):
        half = net(X.float())
    assert half.dtype == torch.bfloat16
    for output in (half.float(), half):
        losses = lines(output.float()), adversarial(output.float())
        found = balanced(output, *losses, net.last.weight)
        assert found.dtype == torch.float32 and found.ndim == 0
        grads = torch.autograd.grad(found, list(net.parameters()), retain_graph=True)
        found = torch.cat([g.flatten() for g in grads]).double()
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_each_loss_is_gone_through_once(generator):
    counts = {"lines": 0, "adversarial": 0, "generator": 0}

    def counted(name, value):
        def count(gradient):
            counts[name] += 1

        value.register_hook(count)
        return value

    hidden = counted("generator", torch.tanh(generator.first(X)))
    output = generator.last(hidden)
    inside = [counted("lines", output + 0), counted("adversarial", output + 0)]
    losses = lines(inside[0]), adversarial(inside[1])
    balanced(output, *losses, generator.last.weight).backward()
    assert counts == {"lines": 1, "adversarial": 1, "generator": 1}


# The rival.


def judge(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 1))
    net[0].bias.requires_grad_(False)  # stands for what never learns
    return net


def rival(net: nn.Module, lr: float = 0.01, **run) -> Rival:
    def loss(real, fake):
        return discriminator_loss(net(real), net(fake))

    return Rival(net, loss, Run(Budget(100, 16), **run), lr)


def batch(step: int):
    random = torch.Generator().manual_seed(step)
    return torch.randn(16, 2, generator=random) + 2, torch.randn(16, 2, generator=random)


def test_turns_alternate_and_the_generator_begins():
    player = rival(judge())
    assert [player.turn() for _ in range(5)] == [False, True, False, True, False]


def test_a_turn_is_one_step_of_radam():
    net, expected = judge(), judge()
    player = rival(net)
    learned = [p for p in expected.parameters() if p.requires_grad]
    optimizer = torch.optim.RAdam(learned, lr=0.01, betas=(0.5, 0.9))
    for step in range(8):
        real, fake = batch(step)
        value = player.step((real, fake))
        optimizer.zero_grad()
        loss = discriminator_loss(expected(real), expected(fake))
        loss.backward()
        optimizer.step()
        assert torch.equal(value, loss.detach())
    for ours, theirs in zip(net.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(net[0].bias, judge()[0].bias)


def test_it_learns_to_tell_real_from_fake():
    net = judge()
    net[1] = nn.Identity()  # normed apart, the two differ no more
    player = rival(net)
    losses = [player.step(batch(step)).item() for step in range(100)]
    assert losses[-1] < 0.8 < 1.5 < losses[0]


def test_the_generators_turn_leaves_no_trace():
    net = judge()
    player = rival(net)
    player.step(batch(0))
    state = copy.deepcopy(player.state_dict())
    x = torch.randn(16, 2, requires_grad=True)
    generator_loss(net(x)).backward()
    assert x.grad.norm() > 0
    assert all(p.grad is None for p in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state["discriminator"][name]), name
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_building_it_draws_nothing():
    net = judge()
    state = torch.get_rng_state()
    rival(net)
    assert torch.equal(torch.get_rng_state(), state)


def test_going_on_is_the_same_as_never_having_stopped():
    net = judge()
    player = rival(net)
    for step in range(7):
        if player.turn():
            player.step(batch(step))
        if step == 3:
            state = copy.deepcopy(player.state_dict())
    other = judge(seed=1)
    again = rival(other)
    again.load_state_dict(state)
    for step in range(4, 7):
        if again.turn():
            again.step(batch(step))
    assert player.count == again.count == 7
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(KeyError):
        again.load_state_dict({"discriminator": other.state_dict(), "count": 1})


def test_rows_go_through_in_parts():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)
            nn.init.constant_(self.layer.weight, 0.1)

        def forward(self, x):
            return self.layer(x)

    whole, parted = Plain(), Plain()
    parted.load_state_dict(whole.state_dict())
    first, second = rival(whole), rival(parted, micro_batch=8)
    for step in range(6):
        values = first.step(batch(step)), second.step(batch(step))
        torch.testing.assert_close(*values)
    torch.testing.assert_close(whole.layer.weight, parted.layer.weight)


def test_small_gradients_survive_half_precision():
    """The factor of two losses with gradients below float16's least number, 6e-8."""
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.float16))
    near, far = (torch.full((4,), size) for size in (4e-8, 2e-8))
    first, second = ((weight.float() * part).sum() for part in (near, far))
    (lost,) = torch.autograd.grad(second, weight, retain_graph=True)
    assert not lost.any()  # unscaled
    factor = adaptive_weight(first, second, weight, eps=0.0)
    assert factor.item() == pytest.approx(2.0, rel=1e-2)

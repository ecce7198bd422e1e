"""Optimisers as words: step sizes over time, the ramp of the average, PyTorch's own classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flowbench import optimizers
from flowbench.average import Average, decay_at
from flowbench.optimizers import DEFAULT, parse
from flowbench.records import Budget, FlowbenchError
from flowbench.testing import toy
from flowbench.training import Run, fit


def factors(word, steps=1000):
    chosen = parse(word)
    return [chosen.factor(step, steps) for step in range(steps)]


def test_the_default_warms_up_and_falls_along_a_cosine():
    assert parse("adam") == DEFAULT
    found = factors("adam")
    assert found[0] == pytest.approx(0.01) and found[99] == found[100] == pytest.approx(1)
    assert found[550] == pytest.approx(0.5, abs=1e-3)
    assert found[999] == pytest.approx(0, abs=1e-5)


def test_other_schedules():
    assert set(factors("radam,schedule=constant,warmup=0")) == {1.0}
    linear = factors("adam,schedule=linear,warmup=0")
    assert linear[0] == 1 and linear[500] == pytest.approx(0.5) and linear[999] < 0.002


def test_a_warm_up_takes_a_tenth_of_short_runs():
    assert factors("adam,schedule=constant,warmup=5000", 100)[:11] == [
        *(pytest.approx((k + 1) / 10) for k in range(10)),
        1.0,
    ]


@pytest.mark.parametrize(
    ("word", "kind"),
    [("adam", torch.optim.Adam), ("radam", torch.optim.RAdam), ("adamw", torch.optim.AdamW)],
)
def test_they_are_pytorchs(word, kind):
    weight = nn.Parameter(torch.zeros(2))
    built = parse(f"{word},beta1=0.5,beta2=0.9").build([weight], 0.25)
    assert type(built) is kind
    assert built.defaults["lr"] == 0.25 and built.defaults["betas"] == (0.5, 0.9)


def test_adamw_decays_weights_and_no_other_does():
    weight = nn.Parameter(torch.ones(1))
    built = parse("adamw,decay=0.5").build([weight], 0.1)
    weight.grad = torch.zeros(1)
    built.step()
    assert weight.item() == pytest.approx(0.95)
    with pytest.raises(FlowbenchError, match="adamw"):
        parse("radam,decay=0.5")


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("sgd", "no optimizer 'sgd'"),
        ("adam,lr=1", "no option of optimizer adam called 'lr'"),
        ("adam,clip=-1", "not negative"),
        ("adam,beta1=1", "below 1"),
        ("adam,warmup", "NAME=VALUE"),
        ("adam,schedule=cosin", "schedule"),
    ],
)
def test_wrong_words_are_one_line(word, match):
    with pytest.raises(FlowbenchError, match=match):
        parse(word)


def test_words_come_back_from_what_they_mean():
    from flowbench import options

    for word in ("adam", "radam,schedule=constant,clip=0.0", "adamw,decay=0.01"):
        assert options.to_word(parse(word)) == word
        assert parse(options.to_word(parse(word))) == parse(word)


def test_ramps_of_the_average():
    """EDM: the half-life is at most 5 % of the steps so far."""
    assert decay_at(1, 0.999) == pytest.approx(2 / 11)
    assert decay_at(10**6, 0.999) == 0.999
    assert decay_at(20, 0.9999, "edm") == pytest.approx(0.5)  # a half-life of one step
    assert decay_at(2000, 0.9999, "edm") == pytest.approx(0.5**0.01)  # and of a hundred
    assert decay_at(10**7, 0.9999, "edm") == 0.9999
    assert [decay_at(k, 0.9, "warmup", 3) for k in (1, 3, 4)] == [0, 0, 0.9]
    assert decay_at(1, 0.9, "none") == 0.9


def test_an_average_without_a_ramp_is_the_plain_one():
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
    average = Average(net, 0.75)
    average.ramp = "none"
    with torch.no_grad():
        net.weight.fill_(1.0)
    for _ in range(3):
        average.update(net)
    assert average.net.weight.item() == pytest.approx(1 - 0.75**3)


def test_training_follows_the_run():
    """One step of Adam is lr times the sign of the gradient; clipping and ramp reach it too."""

    def moved(word):
        torch.manual_seed(0)
        net = nn.Linear(6, 1)
        before = net.weight.detach().clone()
        loss = lambda x, y: 100 * net(x).mean()  # noqa: E731
        run = Run(Budget(1, 8), optimizer=parse(word))
        fit(net, loss, toy("vector").train, run, lr=0.1, ema=0.0)
        return (net.weight - before).abs()

    assert torch.allclose(moved("adam,warmup=0"), torch.full((1, 6), 0.1), atol=1e-5)
    assert not torch.allclose(moved("radam,warmup=0"), moved("adam,warmup=0"))


def test_no_clipping_is_an_infinite_norm():
    assert parse("adam,clip=0").largest == math.inf and DEFAULT.largest == 1.0
    assert set(optimizers.OPTIMIZERS) == {"adam", "radam", "adamw"}


class Quiet:
    """A rival that never changes."""

    count = 0

    def turn(self):
        self.count += 1
        return self.count % 2 == 0

    def step(self, batch):
        return torch.zeros(())

    def state_dict(self):
        return {}

    load_state_dict = state_dict


@pytest.mark.parametrize("rival", [None, Quiet()])
def test_the_step_size_ends_at_0_also_where_a_rival_has_every_other_step(rival, monkeypatch):
    sizes, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *given: sizes.append(self.param_groups[0]["lr"]) or step(self, *given),
    )
    net = nn.Linear(6, 1)
    run = Run(Budget(200, 4))
    fit(net, lambda x, y: net(x).square().mean(), toy("vector").train, run, lr=1.0, rival=rival)
    assert len(sizes) == (200 if rival is None else 100)
    assert max(sizes) == pytest.approx(1.0, abs=1e-2) and sizes[-1] < 2e-3


@pytest.mark.parametrize("word", ["adam", "adamw", "radam"])
def test_on_the_processor_the_kernels_are_those_of_stored_results(word):
    built = parse(word).build(nn.Linear(2, 2).parameters(), 0.1)
    assert all(group.get("fused") is None for group in built.param_groups)
    assert all(group["foreach"] is None for group in built.param_groups)


def test_a_gpu_has_the_fused_kernel_only_where_all_weights_are():
    here, there = SimpleNamespace(is_cuda=False), SimpleNamespace(is_cuda=True)
    found = [optimizers.on_gpu(some) for some in ([there, there], [here, there], [here], [])]
    assert found == [True, False, False, False]


def test_an_average_follows_whichever_network_it_is_given():
    first, second = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    for value, net in ((3.0, first), (5.0, second)):
        nn.init.constant_(net.weight, value)
        net.running_mean.fill_(value)
    average = Average(nn.BatchNorm1d(2), decay=0.0)
    for value, net in ((3.0, first), (5.0, second), (3.0, first)):
        average.update(net)
        assert average.net.weight.tolist() == [value, value]
        assert average.net.running_mean.tolist() == [value, value]
    second.load_state_dict(first.state_dict())
    average.update(second)
    assert average.net.weight.tolist() == [3, 3]

"""No step of a built-in method makes the host wait for the device.

On a GPU a step that asks for a number stands still until everything before it is done.
"""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from host_waits import Unwaiting, Waits
from torch import nn

from flowbench import plugins, training
from flowbench.augment import Augment
from flowbench.nets.settings import parse
from flowbench.records import Budget
from flowbench.testing.subject import Subject
from flowbench.testing.toys import toy

FEW = {"pairs": "64", "pair_steps": "3"}
OPTIONS = {"lmm": FEW, "rect-flow": FEW, "bot-cfm": {"n": "16"}}
METHODS = sorted(n for n, p in plugins.methods().items() if p.distribution == "flowbench")
BUDGET = Budget(3, 16)


def train(name, tmp_path, kind="vector", data=None):
    """Three steps of a method, none of which may wait."""
    plugin = plugins.methods()[name]
    load = lambda: getattr(import_module(plugin.module), plugin.attribute)  # noqa: E731
    subject = Subject(load, tmp_path, name, OPTIONS.get(name, {}), kind=kind)
    run = Unwaiting(BUDGET, tmp_path)
    subject.hook.train(data=data or subject.data, run=run, teacher=subject.teacher, meter={})


@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_device(name, tmp_path):
    train(name, tmp_path)


@pytest.mark.parametrize(
    "word", ["ddpmpp,channels=8,mult=1-1,blocks=1", "openai,channels=64,mult=1-1"]
)
def test_no_backbone_waits(word, tmp_path):
    data = toy("image")
    data = replace(data, train=replace(data.train, augment=Augment("edm")), network=parse(word))
    train("edm", tmp_path, data=data)


def item(loss):
    return loss * (loss.item() > -1)


def condition(loss):
    return loss if loss > -1 else -loss


def masked(loss):
    return loss + loss.new_zeros(3)[loss.new_ones(3) > 0].sum()


def listed(loss):
    return loss + len(loss.detach()[None].tolist())


def copied(loss):
    return loss + loss.detach().cpu()


def close(loss):
    return loss * torch.allclose(loss.detach(), loss.detach())


def counts(loss):
    return loss + 0 * loss.new_ones(3).long().bincount().sum()


def repeats(loss):
    return loss + 0 * loss.new_ones(2).repeat_interleave(loss.new_ones(2).long()).sum()


@pytest.mark.parametrize("bad", [item, condition, masked, listed, copied, close, counts, repeats])
def test_a_loss_that_waits_is_caught(bad):
    net, data = nn.Linear(6, 6), toy("vector")
    run = Unwaiting(BUDGET)

    def loss(x, y):
        return bad((net(x) - x).square().mean())

    with pytest.raises(Waits, match=r"test_host_waits.py:\d+ return loss"):
        training.fit(net, loss, data.train, run)


def test_what_waits_in_the_backward_pass_is_caught():
    class Sneaky(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (gradient.sum().item() > -1)

    net, data = nn.Linear(6, 6), toy("vector")
    loss = lambda x, y: Sneaky.apply(net(x)).square().mean()  # noqa: E731
    with pytest.raises(Waits, match="_local_scalar_dense"):
        training.fit(net, loss, data.train, Unwaiting(BUDGET))


def test_between_steps_numbers_may_be_asked_for():
    net, data = nn.Linear(6, 6), toy("vector")
    seen = []
    run = Unwaiting(BUDGET, watch=lambda progress: seen.append(progress.loss))
    training.fit(net, lambda x, y: (net(x) - x).square().mean(), data.train, run)
    assert seen and all(loss > 0 for loss in seen)

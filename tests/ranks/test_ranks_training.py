"""Training on 1, 2 and 4 ranks: the same batches, gradients, numbers, whoever wrote the loop."""

import gc

import pytest
import several_ranks as several
import torch
from torch import nn

from flowbench import ranks, training
from flowbench.data.base import Split
from flowbench.records import Budget, Diverged, FlowbenchError, RunFailed
from flowbench.step import Step
from flowbench.training import Run

BATCH, PART = 32, 8


def data():
    values = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    return Split(values, torch.arange(200) % 3, "cpu")


def network():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Dropout(0.2), nn.Linear(32, 2)).double()


def loss_of(net):
    """A loss like those of methods: noise and noise levels by row."""

    def loss(x, y):
        t = torch.rand(len(x), 1)
        noise = torch.randn_like(x)
        return (net(((1 - t) * noise + t * x).double()) - (x - noise)).square().mean()

    return loss


def fitted(folder=None, steps=12, micro_batch=PART, batch=BATCH, every=20.0):
    """The averaged weights of a training by `fit`, and what was said of the loss."""
    said = []
    net, budget = network(), Budget(steps, batch)
    run = Run(budget, folder, micro_batch=micro_batch, every=every, watch=said.append)
    average = training.fit(net, loss_of(net), data(), run)
    return [p.detach() for p in average.parameters()], said[-1].loss, torch.rand(2)


def own_loop(wrong=False, folder=None):
    """The weights of two networks, each with an optimiser of its own, in a loop of an author."""
    first, second = network(), network()
    run = Run(Budget(6, BATCH), folder)
    moves = [torch.optim.Adam(net.parameters()) for net in (first, second)]
    parts = {"first": first, "second": second, "one": moves[0], "two": moves[1]}
    for x, y in run.batches(data(), **parts):
        for net, other, move in ((first, second, moves[0]), (second, first, moves[1])):
            move.zero_grad()
            value = loss_of(net)(x, y) + 0.1 * (net(x.double()) - other(x.double())).square().mean()
            if wrong:
                found = torch.func.grad(
                    lambda w, net=net, x=x: (
                        torch.func.functional_call(net, w, (x.double(),)).square().mean()
                    )
                )(dict(net.named_parameters()))
                for name, weight in net.named_parameters():
                    weight.grad = found[name].detach()
            else:
                value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            move.step()
    return [p.detach() for net in (first, second) for p in net.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def near(first, second):
    """Whether float64 weights differ by rounding only."""
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("world", [2, 4])
def test_parts_of_one_size_give_the_same_bits_on_any_number_of_ranks(world):
    weights, loss, later = fitted()
    for other, said, random in several.run(world, fitted):
        assert equal(other, weights) and torch.equal(random, later)
        assert ranks.first() and said == pytest.approx(loss, rel=1e-12)


def test_without_parts_ranks_agree_up_to_rounding():
    weights, _, _ = fitted(micro_batch=None)
    found = several.run(4, fitted, None, 12, None)
    assert all(equal(other, found[0][0]) for other, _, _ in found)
    assert near(found[0][0], weights)


def test_a_batch_that_does_not_divide_is_shared_all_the_same():
    weights, _, _ = fitted(micro_batch=None, batch=30)
    found = several.run(4, fitted, None, 12, None, 30)
    assert near(found[3][0], weights)


def test_a_batch_with_fewer_rows_than_ranks_is_refused():
    for error in several.run(4, fitted, None, 3, None, 3):
        assert isinstance(error, FlowbenchError) and "4 processes cannot share a batch of 3" in str(
            error
        )


def test_an_authors_own_loop_with_two_optimisers_needs_no_line():
    weights = own_loop()
    for other in several.run(2, own_loop):
        assert all(
            torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(other, weights, strict=True)
        )


def many_layers():
    return nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)]).double()


def by_fit(run):
    net = many_layers()
    training.fit(net, lambda x, y: net(x.double()).square().mean(), data(), run)


def two_stages():
    """A stage by `fit`, whose network is then freed, and one by an author's own loop."""
    run = Run(Budget(6, BATCH))
    torch.manual_seed(7)
    by_fit(run.stage("a", 0.5))
    gc.collect()  # so that new weights get the addresses of old ones
    net, stage = many_layers(), run.stage("b", 0.5)
    move = torch.optim.SGD(net.parameters(), lr=0.1)
    for x, _ in stage.batches(data(), net=net, move=move):
        move.zero_grad()
        net(x.double()).square().mean().backward()
        move.step()
    return list(net.parameters())


def test_a_loop_after_a_fit_has_its_own_gradients_summed():
    weights = two_stages()
    for other in several.run(2, two_stages):
        assert not isinstance(other, Exception) and near(other, weights)


def test_gradients_that_came_another_way_are_found_out():
    for error in several.run(2, own_loop, True):
        assert isinstance(error, RunFailed) and "first.0.weight is not the same" in str(error)


def diverging():
    """A loop of an author, in which only the last rank's rows have a loss that is not finite."""
    net, run = network(), Run(Budget(2, BATCH))
    move = torch.optim.Adam(net.parameters())
    for x, y in run.batches(data(), net=net, move=move):
        value = loss_of(net)(x, y)
        value.backward()
        move.step()
        run.log(value * float("nan") if ranks.own() == ranks.count() - 1 else value)


def test_a_loss_that_diverges_on_one_rank_is_met_by_all():
    for error in several.run(2, diverging):
        assert isinstance(error, Diverged) and "the loss became nan at step 2" in str(error)


def interrupted(folder):
    """The first half of a training, which one rank is asked to end."""
    from flowbench import interruption

    calls = []

    def asked():
        calls.append(None)
        return len(calls) >= 5 and ranks.own() == ranks.count() - 1

    interruption.asked = asked
    fitted(folder, every=0.0)


@pytest.mark.parametrize(("before", "behind"), [(2, 1), (1, 4), (4, 2)])
def test_a_stage_goes_on_with_another_number_of_ranks(tmp_path, monkeypatch, before, behind):
    weights, _, _ = fitted()
    if before > 1:
        answers = several.run(before, interrupted, tmp_path)
        assert all(isinstance(answer, KeyboardInterrupt) for answer in answers), "one stops all"
    else:
        from flowbench import interruption

        monkeypatch.setattr(interruption, "asked", interruption.asked)
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path)
        monkeypatch.undo()
    assert torch.load(tmp_path / "train.pt", weights_only=False)["step"] in range(4, 8)
    found = several.run(behind, fitted, tmp_path) if behind > 1 else [fitted(tmp_path)]
    assert all(equal(other, weights) for other, _, _ in found)


def written(folder):
    fitted(folder / f"of-rank-{ranks.own()}")
    return sorted(path.name for path in (folder / f"of-rank-{ranks.own()}").glob("*"))


def test_one_rank_writes(tmp_path):
    first, second = several.run(2, written, tmp_path)
    assert "train.pt" in first and second == []


def test_steps_of_one_process_are_what_they_were():
    net, other = network(), network()
    run = Run(Budget(1, BATCH))
    x, y = data().draw(torch.arange(BATCH))
    torch.manual_seed(1)
    value = loss_of(other)(x, y)
    value.backward()
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    torch.manual_seed(1)
    assert Step(net, loss_of(net), optimizer, schedule, run, 1e9)((x, y)) == value
    assert equal([p.grad for p in net.parameters()], [p.grad for p in other.parameters()])

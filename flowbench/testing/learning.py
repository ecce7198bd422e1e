"""Checks of what a method does when it trains: group T."""

from typing import Any

import torch
from torch import Tensor, nn

from flowbench.checkpoints import read_tensors, save_tensors
from flowbench.data.base import Data
from flowbench.records import Budget
from flowbench.testing.check import Check, Found, Skipped, Warned, require
from flowbench.testing.metadata import READY
from flowbench.testing.subject import Subject
from flowbench.testing.toys import Ended, Ledger, Stop, Watched, steps_into

LEARNING = Budget(60, 128)
COMPARED = range(64)  # samples that are held against the data


def trains(subject: Subject) -> None:
    """Training returns a network, and the losses that it logs are finite."""
    network = subject.network
    require(isinstance(network, nn.Module), f"train returned {type(network).__name__}, no network")
    for stage, losses in subject.base.run.ledger.losses.items():
        bad = [step for step, loss in enumerate(losses, 1) if not loss.isfinite()]
        require(not bad, f"the loss of stage {stage} is not finite at step {bad[:1]}")


def trained_at_all(subject: Subject) -> Ledger:
    """What was done in training; raises Skipped where that was nothing."""
    ledger = subject.base.run.ledger
    if not ledger.drawn and not ledger.outside:
        raise Skipped("it trains nothing")
    return ledger


def learns(subject: Subject) -> None:
    """The loss falls, or at least its samples come nearer to the data."""
    trained_at_all(subject)
    data = subject.points() or subject.data
    run = Watched(LEARNING, subject.folder / f"learning-{data.name}")
    network = subject.trained(run, data, subject.taught(data, LEARNING))
    losses = max(run.ledger.losses.values(), key=len, default=[])
    require(bool(losses), "run.log(loss) is never called: nobody would see a loss of NaN")
    quarter = max(1, len(losses) // 4)
    parts = (losses[:quarter], losses[-quarter:])
    first, last = (torch.stack(part).mean().item() for part in parts)
    if last < first:
        return
    said = f"the loss went from {first:.3g} to {last:.3g} in {len(losses)} steps"
    early = subject.trained(Watched(Budget(1, 16)), data, subject.taught(data, LEARNING))
    before, after = (_distance(subject, net, data) for net in (early, network))
    if after < before:
        raise Warned(f"{said}, but its samples came nearer to the data")
    raise Found(f"{said}, and its samples came no nearer to the data")


def _distance(subject: Subject, network: nn.Module, data: Data) -> float:
    """The energy distance of samples, of the fewest evaluations, to the data."""
    nfe = subject.evaluations[0]
    samples = subject.drawn(network, nfe, COMPARED, data=data).samples.flatten(1)
    rows = data.train.spread(len(COMPARED))[0].flatten(1)
    across = torch.cdist(samples, rows).mean()
    within = torch.cdist(samples, samples).mean() + torch.cdist(rows, rows).mean()
    return (2 * across - within).item()


def reached(subject: Subject) -> None:
    """Every parameter that is trained has had a gradient, and none is left out."""
    ledger = trained_at_all(subject)
    without = [p for key, p in ledger.trained.items() if key not in ledger.reached]
    shapes = ", ".join(str(tuple(parameter.shape)) for parameter in without[:2])
    require(not without, f"{len(without)} parameters never had a gradient, of shape {shapes}")
    trained = sum(parameter.numel() for parameter in ledger.trained.values())
    there = sum(parameter.numel() for parameter in subject.network.parameters())
    require(trained >= there, f"optimisers hold {trained} of the network's {there} parameters")


def restored(subject: Subject) -> None:
    """Weights that are saved and loaded into network(data) give the same samples."""
    if not hasattr(subject.method, "network"):
        raise Skipped("it has no network(data): --weights and --teacher FILE cannot read it")
    path = subject.folder / "network.safetensors"
    save_tensors(path, subject.network.state_dict(), {})
    fresh = subject.method.network(subject.data)
    try:
        fresh.load_state_dict(read_tensors(path)[0])
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise Found(f"network(data) takes no weights of the trained network: {line}") from error
    same = torch.equal(subject.drawn().samples, subject.drawn(fresh.eval()).samples)
    require(same, "the weights loaded into network(data) give other samples")


def continued(subject: Subject) -> None:
    """Training that was interrupted ends with the very weights of one that was not."""
    trained_at_all(subject)
    folder, budget = subject.folder / "interrupted", subject.base.run.budget
    try:
        subject.trained(Ended(budget, folder, every=0))
    except Stop:
        pass
    else:
        raise Found("an exception in run.batches did not end training")
    network = subject.trained(Watched(budget, folder, every=0))
    away = _difference(network, subject.network)
    require(away == 0.0, f"interrupted and gone on with, weights are {away:.2g} away")


def kept(subject: Subject) -> None:
    """A finished run is restored, without a step of training."""
    trained_at_all(subject)
    run = Watched(subject.base.run.budget, subject.folder / "base")
    network = subject.trained(run)
    steps = sum(run.ledger.steps.values()) + run.ledger.outside
    require(steps == 0, f"a finished run took {steps} steps again")
    away = _difference(network, subject.network)
    require(away == 0.0, f"a finished run came back with weights {away:.2g} away")


def _difference(network: nn.Module, other: nn.Module) -> float:
    """The largest difference of two networks' weights; infinite where they do not match."""
    first, second = network.state_dict(), other.state_dict()
    if first.keys() != second.keys():
        return float("inf")
    away = [_apart(first[name], second[name]) for name in first]
    return max(away, default=0.0)


def _apart(first: Tensor, second: Tensor) -> float:
    if first.shape != second.shape or first.isnan().any():
        return float("inf")
    return (first.double() - second.double()).abs().max().item() if first.numel() else 0.0


def within_budget(subject: Subject) -> None:
    """Each stage draws the batches of its budget, takes one step on each, and is billed so."""
    ledger, run = trained_at_all(subject), subject.base.run
    for stage, drawn in ledger.drawn.items():
        budget = ledger.budgets[stage]
        most = run.budget.steps
        require(budget <= most, f"stage {stage} gave itself {budget} steps, {most} are its budget")
        require(drawn == budget, f"stage {stage} drew {drawn} of its {budget} batches")
        steps = max((n for (name, _), n in ledger.steps.items() if name == stage), default=0)
        require(steps <= drawn, f"stage {stage} took {steps} steps on {drawn} batches")
        images = run.bill.get(stage, {}).get("images")
        wanted = drawn * run.budget.batch
        require(images == wanted, f"stage {stage} has {images} images on its bill, not {wanted}")


def inside(subject: Subject) -> None:
    """No optimiser steps while no batch of run.batches is out."""
    outside = trained_at_all(subject).outside
    require(not outside, f"{outside} optimiser steps outside of run.batches")


def state_kept(subject: Subject) -> None:
    """What is global is after training as it was before: nothing of it reaches the next run."""
    changed = subject.base.changed
    require(not changed, f"training leaves another {', '.join(changed)} behind")


def measures(subject: Subject) -> None:
    """What it measures of itself are numbers with names."""
    if not subject.hook.measure.get_hookimpls():
        raise Skipped("it has no hook measure")
    given = {"network": subject.network, "data": subject.data, "run": subject.base.run}
    with steps_into(Ledger()) as ledger:
        found = subject.hook.measure(**given, teacher=subject.teacher)
    require(not ledger.outside, "measure trains: it took optimiser steps")
    for name, value in (found or {}).items():
        require(isinstance(name, str), f"the name {name!r} is no text")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number, f"{name} is {type(value).__name__}, no number")


def _training(
    id: str, name: str, title: str, advice: str, run: Any, *after: str, slow: bool = False
) -> Check:
    return Check(id, name, title, advice, run, (*READY, *after), slow)


CHECKS = (
    _training(
        *("T01", "trains", "training returns a network"),
        "return the torch.nn.Module that `sample` is to get",
        trains,
    ),
    _training(
        *("T02", "learns", "the loss falls on toy data"),
        "log the loss that is minimised: training.fit does, or call run.log(loss)",
        learns,
        *("T01", "S01"),
    ),
    _training(
        *("T03", "gradients", "gradients reach every parameter"),
        "use each parameter in the loss and hand all to the optimiser; make constants buffers",
        reached,
        "T01",
    ),
    _training(
        *("T04", "weights", "saved weights make the same samples"),
        "keep all that sampling needs in parameters and buffers of network(data)",
        restored,
        *("T01", "S01"),
    ),
    _training(
        *("T05", "interrupted", "interrupted training equals continuous"),
        "hand all that changes to run.batches(source, net=..., optimizer=..., ...)",
        continued,
        "T01",
    ),
    _training(
        *("T06", "finished", "a finished run is restored, not trained"),
        "train inside the loop over run.batches only, and do nothing random after it",
        kept,
        "T01",
    ),
    _training(
        *("T07", "budget", "the budget is kept and billed"),
        "take one step on each batch, leave no loop early, get stages from run.stage",
        within_budget,
        "T01",
    ),
    _training(
        *("T08", "loop", "no training outside of run.batches"),
        "move every optimiser step into the loop over run.batches",
        inside,
        "T01",
    ),
    _training(
        *("T09", "global-state", "training leaves global state alone"),
        "pass dtype and device along; set nothing for the whole process",
        state_kept,
        "T01",
    ),
    _training(
        *("T10", "measure", "what it measures are numbers"),
        "return {name: float} from measure, of tensors .item()",
        measures,
        "T01",
        slow=True,
    ),
)

"""Checks of a sampler against answers that are known: group K."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from flowbench import solvers
from flowbench.noise import unit_noise
from flowbench.records import Budget
from flowbench.testing.check import Check, Skipped, Warned, require
from flowbench.testing.laws import FORMS, STRAIGHT, Affine, Closed, begin_at
from flowbench.testing.metadata import READY
from flowbench.testing.subject import Subject
from flowbench.testing.toys import Watched

ROWS = range(8)
NFES = (4, 8, 16, 32, 64)
FITS = 0.02  # how far, relative to the exact field, the hook `velocity` may be from it
NOUGHT = 2e-3  # an error below this, relative to the samples, counts as none
ORDERS = 0.8  # share of the order that must be seen
RIGHT = 0.02  # relative error of one evaluation on straight lines
INSIDE = 1e-6  # how far from a jump of the field it is integrated
LEARNING = Budget(300, 128)
HITS, NEAR, SHARE = 200, 0.4, 0.04  # samples, distance to a mode, least share of each


def falls(subject: Subject) -> None:
    """On an exact field the error falls with the evaluations, at the order of the solver."""
    interval = _interval(subject)
    noise, law = unit_noise(0, ROWS, subject.data.shape), Affine()
    begin = torch.full((len(noise),), interval[0], dtype=torch.float64)
    exact = law.move(begin_at(noise, interval[0]), begin, torch.ones_like(begin))
    worst: list[str] = []
    for form, network in _networks(subject, law):
        said = _judged(subject, network, exact, f"the exact {form}")
        if said is None:
            return
        worst.append(said)
    require(not worst, "; ".join(worst[:1]))
    said = _judged(subject, subject.network, _followed(subject), "its own trained field")
    if said is not None:  # jumps that are hardly trained need not agree with each other
        raise Warned(said)


def _judged(subject: Subject, network: nn.Module, exact: Tensor, what: str) -> str | None:
    """What is wrong with the errors against `exact` ends (B, *shape), or None."""
    numbers = [nfe for nfe in NFES if not subject.refuses(nfe)]
    if not numbers:
        return _judged_adaptive(subject, network, exact, what)
    errors = [_error(subject, network, exact, nfe) for nfe in numbers]
    if errors[-1] <= NOUGHT:
        return None
    if len(numbers) < 2:
        raise Skipped(f"of {NFES} evaluations it takes only {numbers[0]}")
    order = math.log(errors[0] / errors[-1]) / math.log(numbers[-1] / numbers[0])
    if order >= ORDERS * subject.order:
        return None
    return (
        f"on {what} the error goes from {errors[0]:.2g} at NFE {numbers[0]} to {errors[-1]:.2g}"
        f" at {numbers[-1]}: order {order:.1f}, not {subject.order:g}"
    )


def _judged_adaptive(subject: Subject, network: nn.Module, exact: Tensor, what: str) -> str | None:
    """The same for a solver that chooses its own evaluations."""
    if subject.refuses(None):
        raise Skipped(f"it takes none of {NFES} evaluations")
    error = _error(subject, network, exact, None)
    return None if error <= NOUGHT else f"on {what} it ends {error:.2g} away, relative to samples"


def _error(subject: Subject, network: nn.Module, exact: Tensor, nfe: int | None) -> float:
    """The relative root mean square error; raises Skipped where fresh noise goes into it."""
    found = subject.drawn(network, nfe=nfe, rows=range(len(exact)))
    if found.fresh:
        raise Skipped("it adds fresh noise while it samples: there is no path to follow")
    return ((found.samples - exact).square().mean() / exact.square().mean()).sqrt().item()


def _networks(subject: Subject, law: Affine) -> Iterator[tuple[str, nn.Module]]:
    """Exact networks, each with its form, in which the hook `velocity` gives the exact field."""
    if subject.exact is not None:
        yield "network of the contract", subject.exact(law, subject.data)
        return
    for form in FORMS:
        network = Closed(law, form).eval()
        if _misfit(subject, network, law) <= FITS:
            yield form, network


def _misfit(subject: Subject, network: nn.Module, law: Affine) -> float:
    """How far the canonical field that the method sees in `network` is from the exact one."""
    begin, end = _interval(subject)
    shape = subject.data.shape
    z = unit_noise(3, ROWS, shape)
    t = begin + (end - begin) * torch.linspace(0.1, 0.9, len(z))
    exact = law.velocity(z, t)
    try:
        with torch.no_grad():
            found = subject.field(network)(z, t, torch.zeros(len(z), dtype=torch.int64))
        return ((found - exact).square().mean() / exact.square().mean()).sqrt().item()
    except Exception:  # a network of another form is called in another way
        return math.inf


def _followed(subject: Subject) -> Tensor:
    """Where the trained network's own field leads, integrated finely."""
    (begin, end), network = _interval(subject), subject.network
    stops = [begin, *getattr(subject.method, "knots", ()), end]
    labels = torch.tensor(ROWS) % 2
    z = (1 - begin) * unit_noise(0, ROWS, subject.data.shape)
    for first, last in pairwise(stops):
        field = subject.field(network)
        z = solvers.dopri5(field, z, labels, 1e-6, 1e-6, first + INSIDE, last - INSIDE)
    t = torch.full((len(z),), end - INSIDE)
    with torch.no_grad():
        return z + (1 - end) * subject.field(network)(z, t, labels)


def right_at_once(subject: Subject) -> None:
    """Straight lines are followed to their ends by the fewest evaluations."""
    interval, nfe = _interval(subject), subject.evaluations[0]
    noise, law = unit_noise(0, ROWS, subject.data.shape), Affine(straight=True)
    begin = torch.full((len(noise),), interval[0], dtype=torch.float64)
    exact = law.move(begin_at(noise, interval[0]), begin, torch.ones_like(begin))
    found = [pair for pair in _networks(subject, law) if pair[0] in STRAIGHT or subject.exact]
    if not found:
        raise Skipped("in no known form of its network are the paths straight lines")
    errors = [_error(subject, network, exact, nfe) for _, network in found]
    away = f"{min(errors):.2g} away from the ends of straight lines, relative to them"
    require(min(errors) <= RIGHT, f"NFE {nfe or 'auto'} ends {away}")


def all_modes(subject: Subject) -> None:
    """After a short training, samples of four modes hit each of them."""
    subject, data = subject.roomy(), subject.points()
    if data is None:
        raise Skipped("it does not learn from points")
    run = Watched(LEARNING, subject.folder / "modes")
    teacher = subject.taught(data, LEARNING)
    network = subject.trained(run, data, teacher)
    most = [nfe for nfe in (16, 8, 5, 4, 3, 2, 1) if not subject.refuses(nfe)]
    nfe = most[0] if most else None
    samples = subject.drawn(network, nfe=nfe, rows=range(HITS), data=data).samples
    assert data.modes is not None
    away, nearest = torch.cdist(samples, data.modes.means).min(1)
    hits = nearest[away < NEAR].bincount(minlength=len(data.modes.means)) / HITS
    words = ", ".join(f"{share:.0%}" for share in hits.tolist())
    require(bool((hits >= SHARE).all()), f"of {HITS} samples, {words} hit the four modes")


def _interval(subject: Subject) -> tuple[float, float]:
    if subject.interval is None:
        raise Skipped("it has no velocity, so no path is known")
    return subject.interval


def _answer(id: str, name: str, title: str, advice: str, run: Any, slow: bool = False) -> Check:
    return Check(id, name, title, advice, run, (*READY, "T01", "S01"), slow)


CHECKS = (
    _answer(
        *("K01", "order", "on an exact field the error falls with NFE"),
        "look at times and step sizes; `velocity` is the field of `sample`; or give `exact`",
        falls,
    ),
    _answer(
        *("K02", "straight", "straight lines need the fewest evaluations"),
        "let the first step begin where the noise is, and the last one end at the data",
        right_at_once,
    ),
    _answer(
        *("K03", "modes", "a short training hits all modes"),
        "look at the loss, and at sampling with many evaluations",
        all_modes,
        slow=True,
    ),
)

"""Checks of what a method does when it samples: group S."""

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowbench.noise import unit_noise
from flowbench.testing import surroundings
from flowbench.testing.check import Check, Found, Skipped, require
from flowbench.testing.metadata import READY
from flowbench.testing.subject import ROWS, Subject

CALLS = 3  # behind which memory must be what it was


def shaped(subject: Subject) -> None:
    """Samples have the shape of their noise and are float32."""
    samples = subject.drawn().samples
    require(isinstance(samples, Tensor), f"sample returned {type(samples).__name__}, no tensor")
    wanted = (len(ROWS), *subject.data.shape)
    require(samples.shape == wanted, f"{tuple(samples.shape)} for noise of {wanted}")
    require(samples.dtype == torch.float32, f"samples are {samples.dtype}, not torch.float32")


def finite(subject: Subject) -> None:
    """No sample is infinite or NaN, at any number of evaluations."""
    for nfe in subject.evaluations:
        samples = subject.drawn(nfe=nfe).samples
        bad = int((~samples.flatten(1).isfinite().all(1)).sum())
        require(not bad, f"{bad} of {len(samples)} samples at NFE {nfe or 'auto'} are not finite")


def exact_number(subject: Subject) -> None:
    """As many samples as noises: one, and an odd number."""
    for rows in (range(1), range(7)):
        found = subject.drawn(rows=rows).samples.shape[0]
        require(found == len(rows), f"{found} samples of {len(rows)} noises")


def counted(subject: Subject) -> None:
    """As many evaluations as asked for, at each number."""
    for nfe in subject.evaluations:
        spent = subject.drawn(nfe=nfe).nfe
        require(spent > 0, "its network is never called: nothing can be counted")
        require(nfe is None or spent == nfe, f"spent {spent:g} evaluations where {nfe} were asked")


def seeded(subject: Subject) -> None:
    """The same noise gives the same samples, bit for bit."""
    first, second = subject.drawn().samples, subject.drawn().samples
    away = (first - second).abs().max().item() if not torch.equal(first, second) else 0.0
    require(away == 0.0, f"the same noise twice gave samples {away:.2g} apart")


def noise_reaches(subject: Subject) -> None:
    """Other noise gives other samples, in every row."""
    labels = torch.zeros(len(ROWS), dtype=torch.int64)
    first = subject.drawn(labels=labels).samples
    second = subject.drawn(labels=labels, seed=1).samples
    same = [row for row in ROWS if torch.equal(first[row], second[row])]
    require(not same, f"rows {same} are the same for another noise")


def batch_free(subject: Subject) -> None:
    """A sample does not depend on the batch that it is drawn in."""
    bound = 1e-4 if subject.evaluations[-1] else 1e-2  # adaptive steps are those of the batch
    together = subject.drawn().samples
    alone = torch.cat([subject.drawn(rows=range(i, i + 1)).samples for i in ROWS])
    if not torch.allclose(together, alone, bound, bound):
        away = (together - alone).abs().max().item()
        raise Found(f"drawn alone, a sample is {away:.2g} away from itself in a batch")


def noise_kept(subject: Subject) -> None:
    """The noise and the labels stay as they were."""
    noise, labels = unit_noise(0, ROWS, subject.data.shape), torch.tensor(ROWS) % 2
    noise_before, labels_before = noise.clone(), labels.clone()
    subject.drawn(noise=noise, labels=labels)
    require(torch.equal(noise, noise_before), "sample changed its noise in place")
    require(torch.equal(labels, labels_before), "sample changed its labels in place")


def network_kept(subject: Subject) -> None:
    """Weights, buffers and modes of the network stay as they were."""
    network = subject.copied().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    subject.drawn(network)
    for name, value in network.state_dict().items():
        require(torch.equal(before[name], value), f"sample changed {name} of the network")
    modes = [name for name, module in network.named_modules() if module.training]
    require(not modes, f"sample left modules in training mode: {len(modes)} of them")


def graph_free(subject: Subject) -> None:
    """Samples hold no graph, and no gradient is left in the network."""
    network = subject.copied()
    network.requires_grad_(True)
    samples = subject.drawn(network).samples
    require(not samples.requires_grad, "samples hold the graph of all evaluations")
    left = [name for name, value in network.named_parameters() if value.grad is not None]
    require(not left, f"sample left a gradient in {', '.join(left[:1])}")


def memory_flat(subject: Subject) -> None:
    """Repeated calls leave no tensors behind."""
    network = subject.copied()
    subject.drawn(network, rows=range(2))
    gc.freeze()  # so that only what is new is looked at
    try:
        for call in range(CALLS):
            subject.drawn(network, rows=range(2), seed=call)
        gc.collect()
        left = sum(issubclass(type(found), Tensor) for found in gc.get_objects())
    finally:
        gc.unfreeze()
    require(left < CALLS, f"{left} tensors are still held after {CALLS} calls")


def labelled(subject: Subject) -> None:
    """Labels reach the network, each with its own row."""
    if not subject.data.classes:
        raise Skipped("the data have no classes")
    zeros = torch.zeros(len(ROWS), dtype=torch.int64)
    mixed = zeros.clone()
    mixed[0] = 1
    seen: list[Tensor] = []
    network = subject.copied()
    network.register_forward_pre_hook(
        lambda module, args, given: seen.extend(_whole([*args, *given.values()])), with_kwargs=True
    )
    first, second = (subject.drawn(network, labels=labels).samples for labels in (zeros, mixed))
    moved = [row for row in ROWS if not torch.allclose(first[row], second[row], atol=1e-5)]
    others = [row for row in moved if row]
    require(not others, f"another label of row 0 changed row {others[:1]}")
    if not moved and not any(torch.equal(found, mixed) for found in seen):
        raise Found("labels never reach the network")


def _whole(values: list[Any]) -> Iterator[Tensor]:
    """Copies of the tensors of whole numbers, each row's label perhaps."""
    for value in values:
        if isinstance(value, Tensor) and not value.is_floating_point():
            yield value.clone()


def random_kept(subject: Subject) -> None:
    """The global random generators are not touched."""
    before = surroundings.random_states()
    subject.drawn()
    for name, state in surroundings.random_states().items():
        require(state == before[name], f"sample drew from the global generator of {name}")


def field_finite(subject: Subject) -> None:
    """The field is finite from the beginning to the end of its interval."""
    if subject.interval is None:
        raise Skipped("it has no velocity: straightness stays empty")
    network, (begin, end) = subject.network, subject.interval
    z, labels = unit_noise(0, range(4), subject.data.shape), torch.arange(4) % 2
    for t in (begin, (begin + end) / 2, end):
        with torch.no_grad():
            field = subject.field(network)(z, torch.full((4,), t), labels)
        require(field.shape == z.shape, f"velocity is {tuple(field.shape)} for {tuple(z.shape)}")
        require(bool(field.isfinite().all()), f"velocity at t = {t:.4g} is not finite")


def _sampling(
    id: str, name: str, title: str, advice: str, run: Any, after: tuple[str, ...] = ("S01",)
) -> Check:
    return Check(id, name, title, advice, run, (*READY, "T01", *after))


CHECKS = (
    _sampling(
        *("S01", "shape", "samples look like the data"),
        "return float32 samples shaped like `noise`",
        shaped,
        (),
    ),
    _sampling(
        *("S02", "finite", "samples are finite"),
        "look for a division by a time or level that is 0 at an end of the grid",
        finite,
    ),
    _sampling(
        *("S03", "number", "there are as many samples as noises"),
        "take the number of rows from `noise`, never from a setting",
        exact_number,
    ),
    _sampling(
        *("S04", "evaluations", "it spends the evaluations asked for"),
        "call `network` itself, nfe times for each row; use `refuses` for numbers it cannot take",
        counted,
    ),
    _sampling(
        *("S05", "seed", "the same noise gives the same samples"),
        "take all randomness from `noise` and `rng()`",
        seeded,
    ),
    _sampling(
        *("S06", "noise", "other noise gives other samples"),
        "start from `noise`; keep nothing from call to call",
        noise_reaches,
    ),
    _sampling(
        *("S07", "batch", "a sample is the same in any batch"),
        "let no row look at another one: no means over the batch, no noise of one's own",
        batch_free,
    ),
    _sampling(
        *("S08", "inputs", "noise and labels are left as they are"),
        "write z = z + ..., not z += ...",
        noise_kept,
    ),
    _sampling(
        *("S09", "network", "sampling leaves the network alone"),
        "change no weight or buffer in sample, and do not call train()",
        network_kept,
    ),
    _sampling(
        *("S10", "graph", "samples hold no autograd graph"),
        "compute gradients of the input only, and return samples.detach()",
        graph_free,
    ),
    _sampling(
        *("S11", "memory", "memory stays flat over calls"),
        "keep no samples or noises in caches or lists",
        memory_flat,
    ),
    _sampling(
        *("S12", "labels", "labels reach the network, row by row"),
        "pass `labels` on to the network in the order of the rows",
        labelled,
    ),
    _sampling(
        *("S13", "random-state", "sampling draws no global random number"),
        "draw with rng(), or from a torch.Generator of your own",
        random_kept,
    ),
    _sampling(
        *("S14", "field", "its field is finite where it is defined"),
        "name in `interval` the times between which `velocity` is defined",
        field_finite,
        (),
    ),
)

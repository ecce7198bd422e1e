"""Random numbers by row: a part of a batch gets those that the whole batch would have drawn.

So noise, noise levels and augmentation of an example do not hang on how many examples go through
the network at once, nor on how many ranks share a batch. Of laws that reject some of what they
draw, such as Poisson's, parts draw other numbers, each its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Size, Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from flowbench.ranks import Part

SIZED = {torch.rand, torch.randn, torch.randint}
LIKE = {torch.rand_like, torch.randn_like, torch.randint_like}
FILLING = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_),
    *(Tensor.random_, Tensor.log_normal_, Tensor.cauchy_, Tensor.geometric_),
}
BY_VALUE = {
    *(torch.bernoulli, Tensor.bernoulli, torch.poisson, torch.binomial),
    *(torch._standard_gamma, torch._sample_dirichlet),
}
CHOOSING = {torch.multinomial, Tensor.multinomial}
DROPPING = {functional.dropout, torch.dropout}
WITHIN = {
    *(functional.dropout1d, functional.dropout2d, functional.dropout3d, torch.dropout_),
    *(functional.alpha_dropout, functional.feature_alpha_dropout, functional.gumbel_softmax),
    *(functional.scaled_dot_product_attention, functional.multi_head_attention_forward),
}


class Rows(TorchFunctionMode):
    """While a part of a batch is `of` interest, random tensors with its rows are cut from larger
    ones, which have a row for each of the whole batch.

    A dimension is one of rows if it is the first and has a multiple of their number or half of it,
    or else if it has just that number. What has a generator of its own is left
    alone, and so is a permutation: that of all rows has no part which is one of these.
    """

    part: Part | None = None
    _entered = False
    _inner = False  # whether it is a part of the one at hand before, and others follow

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Let random numbers be those of the rows of `part`, while the block runs."""
        before = self.part, self._entered, self._inner
        self._inner = self._inner or self.part not in (None, part)
        self._entered = self._entered or not part.whole
        self.part = part
        try:
            if self._entered == before[1]:
                yield
            else:
                with self:
                    yield
        finally:
            self.part, self._entered, self._inner = before

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        draw = None if given.get("generator") is not None else self._draw(func)
        if draw is None:
            return func(*args, **given)
        # Of parts that follow each other each would be compiled, so draws are left out there.
        drawn = self._eagerly if self._inner else self._drawn
        return drawn(draw, func, args, given)

    def _drawn(
        self,
        draw: Callable[..., Any],
        func: Callable[..., Any],
        args: tuple[Any, ...],
        given: dict[str, Any],
    ) -> Any:
        part = self.part
        if part is None or part.whole or not len(part):
            return func(*args, **given)
        return draw(part, func, args, given)

    _eagerly = torch.compiler.disable(_drawn)

    def _draw(self, func: Callable[..., Any]) -> Callable[..., Any] | None:
        """Who draws for `func`; None where it is no business of ours."""
        for known, draw in DRAWS:
            if func in known:
                return draw
        return None


def _sized(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """torch.rand and its like: sizes one by one or together; of randint behind the bounds."""
    if "size" in given:
        before, size, behind = args, given.pop("size"), ()
    elif func is torch.randint:
        place = next(i for i, arg in enumerate(args) if not isinstance(arg, Integral))
        before, size, behind = args[:place], args[place], args[place + 1 :]
    else:
        together = bool(args) and not isinstance(args[0], Integral)
        before, size, behind = (), args[0] if together else args, args[1:] if together else ()
    larger, cut = _larger(Size(size), part)
    if before or behind:
        return cut(func(*before, larger, *behind, **given))
    return cut(func(size=larger, **given))  # bounds may have been named, too


def _like(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """torch.rand_like and its like."""
    x, *others = (given.pop("input"),) if "input" in given else args
    return _formed(part, x, lambda larger: func(larger, *others, **given))


def _filling(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """What fills a tensor in its place."""
    x, *others = args
    return x.copy_(_formed(part, x, lambda larger: func(larger, *others, **given)))


def _formed(part: Part, x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """What is drawn into the form of x: numbers are laid down as x lies in memory."""
    larger, cut = _larger(x.shape, part)
    last = x.ndim == 4 and not x.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    return cut(draw(x.new_empty(larger).to(memory_format=order)))


def _by_value(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Functions that draw by a tensor of their law's numbers: other rows take those of these."""
    x = args[0]
    if not x.ndim or len(x) != len(part):
        return func(*args, **given)
    others = (torch.arange(part.total, device=x.device) - part.start) % len(part)
    law = [each[others] if isinstance(each, Tensor) else each for each in args]
    return func(*law, **given)[part.rows]


def _choosing(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Choices by weights; with replacement, since else no more can be drawn than there are."""
    names = dict(zip(("self", "num_samples", "replacement"), args, strict=False)) | given
    weights, n = names.pop("self", None), names["num_samples"]
    weights = names.pop("input") if weights is None else weights
    if weights.ndim > 1 and len(weights) == len(part):
        return _by_value(part, func, (weights,), names)
    if n % len(part) or not (names.get("replacement") or n == 1):
        return func(*args, **given)
    (larger,), cut = _larger(Size([n]), part)
    drawn = torch.multinomial(weights, larger, replacement=True)
    return cut(drawn) if weights.ndim == 1 else torch.stack([cut(row) for row in drawn])


def _normal(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """torch.normal, by numbers and a size or by tensors of the law's numbers."""
    names = dict(zip(("mean", "std", "size"), args, strict=False)) | given
    if "size" in names:
        larger, cut = _larger(Size(names.pop("size")), part)
        return cut(func(size=larger, **names))
    mean, std = names.pop("mean"), names.pop("std", 1.0)
    return mean + std * _like(part, torch.randn_like, (mean + std,), names)


def _dropping(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Dropout, as torch's own does it on a CPU."""
    names = dict(zip(("input", "p", "training" if len(args) > 2 else "train"), args, strict=False))
    names |= given
    x, p = names["input"], names.get("p", 0.5)
    if not names.get("training", names.get("train", True)) or p == 0:
        return x
    larger, cut = _larger(x.shape, part)
    kept = cut(torch.empty(larger, dtype=x.dtype, device=x.device).bernoulli_(1 - p))
    return x * kept / (1 - p)


class Cut(TorchDispatchMode):
    """Cuts what functions draw that are written in Python or C++ and hide their draws."""

    def __init__(self, part: Part):
        super().__init__()
        self.part = part

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        given = kwargs or {}
        in_place = func.overloadpacket.__name__.endswith("_")
        if in_place and torch.Tag.nondeterministic_seeded in func.tags:
            return _filling(self.part, func, args, given)
        return func(*args, **given)


def _within(part: Part, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """What draws where a function mode does not look: by operators that fill a tensor."""
    with Cut(part):
        return func(*args, **given)


def _larger(size: Size, part: Part) -> tuple[Size, Callable[[Tensor], Tensor]]:
    """The size with a row for each of the whole batch, and what cuts these rows out."""
    n = len(part)
    if size and size[0] and size[0] % n == 0:
        times = size[0] // n
        larger = Size([times * part.total, *size[1:]])
        whole = (times, part.total, *size[1:])
        return larger, lambda drawn: drawn.view(whole)[:, part.rows].reshape(size)
    if size and 2 * size[0] == n and part.even:  # such as losses that treat halves in two ways
        larger, half = Size([part.total // 2, *size[1:]]), slice(part.start // 2, part.stop // 2)
        return larger, lambda drawn: drawn[half].clone()
    place = next((i for i, length in enumerate(size) if length == n), None)
    if place is None:
        return size, lambda drawn: drawn
    larger = Size([*size[:place], part.total, *size[place + 1 :]])
    return larger, lambda drawn: drawn.narrow(place, part.start, n).contiguous()


DRAWS: tuple[tuple[set[Any], Callable[..., Any]], ...] = (
    *((SIZED, _sized), (LIKE, _like), (FILLING, _filling)),
    *((BY_VALUE, _by_value), (CHOOSING, _choosing), (DROPPING, _dropping)),
    ({torch.normal}, _normal),
    (WITHIN, _within),
)

"""Axes whose limits and ticks are known before they are drawn, so that labels can be placed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

WIDE = 5.0  # the least ratio of the largest to the smallest value for which an axis is logarithmic
TICKS = 6  # at most, about
MARGIN = 0.05  # of an axis that stays empty at each end


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` along `length` pixels."""

    low: float
    high: float
    length: int
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """How many pixels from the low end a value is drawn."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.length * (value - low) / (high - low)

    def value(self, pixel: float) -> float:
        """The value that is drawn so many pixels from the low end."""
        part = pixel / self.length
        if self.log:
            return self.low * (self.high / self.low) ** part
        return self.low + part * (self.high - self.low)

    def channel(self, kind: type, field: str, title: Any, grid: bool = True) -> Any:
        """The Altair channel of this axis, `alt.X` or `alt.Y`."""
        scale = alt.Scale(
            type="log" if self.log else "linear",
            domain=[self.low, self.high],
            nice=False,
            zero=False,
        )
        large = max(map(abs, self.ticks), default=0) >= 10_000
        labels = "format(datum.value, '~s')" if large else "format(datum.value, '~g')"
        axis = alt.Axis(values=list(self.ticks), labelExpr=labels, labelOverlap="greedy", grid=grid)
        return kind(f"{field}:Q", title=title, scale=scale, axis=axis)


def fitted(
    values: Iterable[float],
    length: int,
    ends: Iterable[float] = (),
    log: bool = True,
    margin: float = MARGIN,
) -> Axis:
    """An axis that shows all finite values, and leaves a `margin` of its length at each end.

    It is logarithmic if it may be and they are positive and far apart. It shows the `ends` of
    error bars too, but on a logarithmic axis none far below all values.
    """
    found = [value for value in values if math.isfinite(value)]
    low, high = min(found), max(found)
    log = log and low > 0 and high / low >= WIDE
    ends = [end for end in ends if math.isfinite(end) and (not log or end > low / WIDE)]
    low, high = min([low, *ends]), max([high, *ends])
    if log:
        ratio = (high / low) ** margin
        return Axis(low / ratio, high * ratio, length, True, _decades(low / ratio, high * ratio))
    edge = margin * (high - low) or margin * abs(high) or 1.0
    return Axis(low - edge, high + edge, length, False, _steps(low - edge, high + edge))


def at(values: Sequence[float], length: int) -> Axis:
    """A logarithmic axis of positive values with a tick at each of these."""
    return Axis(values[0] / 1.15, values[-1] * 1.15, length, True, tuple(values))


def _decades(low: float, high: float) -> tuple[float, ...]:
    """Round values within limits for a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= TICKS + 1:
            break
    if len(ticks) < 3:
        return _steps(low, high)
    return tuple(ticks[:: -(-len(ticks) // (TICKS + 1))])


def _steps(low: float, high: float) -> tuple[float, ...]:
    """Round values within limits, evenly apart."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))

"""The form of a suite's file: which keys each table has, and which values they take."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flowbench.records import ADAPTIVE, RUN_LEVEL

MOST = 10_000  # evaluations, as of `run --nfe`


def _nfe(value: object) -> object:
    """A number of evaluations; "auto" and 0 mean what an adaptive solver takes."""
    if value == "auto":
        return ADAPTIVE
    if isinstance(value, bool) or not isinstance(value, int) or value < ADAPTIVE:
        raise ValueError('takes whole numbers from 1, or "auto"')
    if value > MOST:
        raise ValueError(f"takes numbers up to {MOST}")
    return value


Nfe = Annotated[int, BeforeValidator(_nfe)]
Precision = Literal["fp32", "bf16", "fp16"]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Samples = Annotated[int, Field(ge=2, le=2**31 - 1)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Table(BaseModel):
    """A table of the file: unknown keys and wrong types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Places(Table):
    """A table that names data sets, one or several."""

    dataset: str | None = None
    datasets: list[str] = []

    @model_validator(mode="after")
    def _one_word(self) -> Self:
        if self.dataset and self.datasets:
            raise ValueError("takes dataset or datasets, not both")
        return self

    @property
    def places(self) -> list[str]:
        """All of them."""
        return [self.dataset] if self.dataset else self.datasets


class Seeing(Places):
    """How a run sees images and is trained: `run`'s options of the same names.

    What is said here, or in other keys of the file, wins over the preset.
    """

    network: str | None = None
    precision: Precision | None = None
    augment: str | None = None
    unconditional: bool | None = None
    optimizer: str | None = None
    preset: str | None = None


class Head(Seeing):
    """`[suite]`: what holds for every row that does not say otherwise.

    `columns` are the metrics that the table shows; `steps`, `batch`, `samples` and `nfe` default to
    those of the preset, else to those of each data set, and `nfe` to 1, 2, 4, 8.
    """

    title: str
    seeds: list[Seed] = [0]
    nfe: list[Nfe] = []
    steps: Count | None = None
    batch: Count | None = None
    samples: Samples | None = None
    sample_seed: Seed = 0
    reference_rows: Samples | None = None
    columns: list[str] = []


class Row(Seeing):
    """`[[method]]`: one row of the table, a method with its options.

    `teacher` is another row's label or a method. `seconds` is what one run took with the suite's
    own jobs on two cores, for an estimate before there is any history; `gpu_hours` what one is
    computed to take on a GPU of the H200's class, without a teacher that is a row of its own. A
    `reference` is shown but never marked as best.
    """

    label: str
    method: str
    options: dict[str, Any] = {}
    seeds: list[Seed] = []
    nfe: list[Nfe] = []
    steps: Count | None = None
    batch: Count | None = None
    samples: Samples | None = None
    teacher: str | None = None
    seconds: Duration | None = None
    gpu_hours: Duration | None = None
    reference: bool = False


class Expectation(Table):
    """`[[expect]]`: a number with its source, that every seed must meet (or, not `each`, the mean).

    The quantity is the metric of `label` at `nfe` (without it, of the whole run); with `minus`,
    that less the other label's; with `times_below`, the other label's divided by it; with
    `floors`, it must be at most so many times the floor. Quantities are taken seed by seed. One
    that is `published` is a paper's own `value`, for measured ones to be held against.
    """

    label: str = ""
    labels: list[str] = []
    dataset: str | None = None
    metric: str
    nfe: Nfe | None = None
    min: float | None = None
    max: float | None = None
    value: float | None = None
    tolerance: float | None = None
    minus: str | None = None
    times_below: str | None = None
    floors: float | None = None
    each: bool = True
    published: bool = False
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if bool(self.label) == bool(self.labels):
            raise ValueError("takes label or labels")
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("takes value and tolerance together")
        kinds = [(self.min, self.max) != (None, None), self.value is not None, bool(self.floors)]
        if sum(kinds) != 1:
            raise ValueError("takes either min and max, or value and tolerance, or floors")
        if sum(map(bool, (self.minus, self.times_below, self.floors))) > 1:
            raise ValueError("takes only one of minus, times_below and floors")
        if self.published and (self.value is None or self.other):
            raise ValueError("that is published takes value and tolerance of its own")
        return self

    @property
    def level(self) -> int:
        """The NFE as scores carry it."""
        return RUN_LEVEL if self.nfe is None else self.nfe

    @property
    def bounds(self) -> tuple[float, float]:
        """The closed interval that the quantity must lie in."""
        if self.value is not None and self.tolerance is not None:
            return self.value - self.tolerance, self.value + self.tolerance
        low = -float("inf") if self.min is None else self.min
        high = float("inf") if self.max is None else self.max
        return low, self.floors or high

    @property
    def other(self) -> str | None:
        """The label that the quantity also needs, if it needs one."""
        return self.minus or self.times_below


class Token(Table):
    """`[token]`: a size at which every stage of every row runs, and proves no more than that.

    `options` are those of a method or, for one row only, of its label; they win over the row's.
    """

    steps: Count
    batch: Count
    samples: Samples
    network: str | None = None
    precision: Precision | None = None
    reference_rows: Samples | None = None
    options: dict[str, dict[str, Any]] = {}


class File(Table):
    """The whole file."""

    suite: Head
    method: Annotated[list[Row], Field(min_length=1)]
    expect: list[Expectation] = []
    token: Token | None = None

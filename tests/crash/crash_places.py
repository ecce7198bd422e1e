"""Where a process may be killed: functions of the product, found by name and wrapped from outside.

Nothing in the product knows of this. A place that no undisturbed job reaches any more is an error,
so that the matrix does not become empty when functions are renamed.
"""

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Calls of `target`, "module:name", whose arguments hold a text or path that fits `match`.

    `moments` are where in a call it may be: before, after, torn (half of a file is written) and
    worker (the process that the call has started is killed, a little later).
    """

    stage: str
    target: str
    match: str = ""
    moments: tuple[str, ...] = ("before", "after")

    @property
    def name(self) -> str:
        """The target and what its arguments have to fit."""
        return f"{self.target}[{self.match}]" if self.match else self.target

    def fits(self, arguments: Iterable[Any]) -> bool:
        """Whether a call with these arguments counts."""
        texts = [str(one) for one in arguments if isinstance(one, str | Path)]
        if self.target == TORN and "wb" not in texts:
            return False
        return not self.match or any(fnmatch(text, self.match) for text in texts)


TORN = "pathlib:Path.open"  # of the file that is written half
PLACES = (
    Place("teacher", "flowbench.runner:_save", "*-edm-*"),
    Place("teacher", "flowbench.checkpoints:save_state", "*-edm-*/train.pt"),
    Place("pairs", "flowbench.pairs:Pairs._make"),
    Place("pairs", "flowbench.pair_files:Shards._settle"),
    Place("pairs", TORN, "*/pairs-*", ("torn",)),
    Place("training", "flowbench.step:Step.__call__"),
    Place("training", "flowbench.training:Run._save"),
    Place("training", "flowbench.runner:_save"),
    Place("adversarial", "flowbench.checkpoints:save_state", "*/adversarial.pt"),
    Place("adversarial", "flowbench.checkpoints:save_state", "*/adversarial-sot.pt"),
    Place("checkpoint write", "flowbench.checkpoints:write", "*.pt"),
    Place("checkpoint write", TORN, "*.pt*", ("torn",)),
    Place("checkpoint write", "os:replace", "*.pt"),
    Place("sampling", "flowbench.sampling:Sampler.samples"),
    Place("sampling", "flowbench.sampling:Sampler._shards"),
    Place("sampling", TORN, "*/samples-*", ("torn",)),
    Place("sampling", "os:replace", "*/samples-*"),
    Place("metric", "flowbench.execution:_keep"),
    Place("metric", "flowbench.metrics.straightness:straightness"),
    Place("metric", "flowbench.examination:metric_facts"),
    Place("database commit", "sqlalchemy.engine.default:DefaultDialect.do_commit"),
    Place("database commit", "flowbench.store.engine:_on_begin"),
    Place("database commit", "flowbench.store.attempts:Attempt.add"),
    Place("database commit", "flowbench.store.attempts:Attempt.close"),
    Place("database commit", "flowbench.store.attempts:open_attempt", moments=("before",)),
    Place("export", "flowbench.bundle.writing:_write"),
    Place("export", "os:replace", "*.zip"),
    Place("merge", "flowbench.store.merging:merge"),
    Place("merge", "flowbench.bundle.joining:_place"),
    Place("merge", "flowbench.bundle.joining:_unpack"),
    Place("merge", "sqlalchemy.engine.default:DefaultDialect.do_commit"),
    Place("migration", "flowbench.store.schema:_back_up"),
    Place("migration", "alembic.command:upgrade"),
    Place("migration", "flowbench.store.views:create"),
    Place("migration", "sqlalchemy.engine.default:DefaultDialect.do_commit"),
    Place("suite", "flowbench.processes:spawn", moments=("before", "after", "worker")),
    Place("suite", "flowbench.workers:Crew._judge"),
)


def wrap(target: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `make(function)` in the place of a function wherever flowbench has imported it."""
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    owner: Any = functools.reduce(getattr, parents, import_module(module))
    before = getattr(owner, name)
    after = functools.wraps(before)(make(before))
    setattr(owner, name, after)
    for other in list(sys.modules.values()) if not parents else ():
        if getattr(other, "__name__", "").startswith("flowbench"):
            for key in [key for key, value in vars(other).items() if value is before]:
                setattr(other, key, after)

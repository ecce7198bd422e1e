"""What trackers have in common: names of curves and scores, parameters, packages that they need."""

import json
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from flowbench.records import ADAPTIVE, FlowbenchError, Score, Spec


def require(package: str, need: str) -> None:
    """Raise FlowbenchError unless `package` can be imported; nothing is. `need` is pip's word."""
    if find_spec(package) is None:
        raise FlowbenchError(
            f"--track {package} needs a package that is not here: pip install '{need}'"
        )


def parameters(spec: Spec) -> dict[str, bool | int | float | str]:
    """All that decides which network is trained, flat: options as `option.NAME`."""
    budget = {"steps": spec.budget.steps, "batch": spec.budget.batch}
    parts: dict[str, Any] = {"method": spec.method, "dataset": spec.dataset, "seed": spec.seed}
    parts |= budget | {f"option.{name}": value for name, value in spec.options.items()}
    parts |= {f"setting.{name}": value for name, value in spec.setting.items()}
    keys = {"teacher": spec.teacher, "weights": spec.weights, "data": spec.data, "code": spec.code}
    parts |= {name: key for name, key in keys.items() if key}
    return {name: _plain(value) for name, value in parts.items()}


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return "none" if value is None else json.dumps(value, sort_keys=True, default=str)


def versions(spec: Spec) -> dict[str, str]:
    """What made the run: the method's distribution, flowbench, torch and Python."""
    found = {"method": spec.version, "python": platform.python_version()}
    for name in ("flowbench", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            found[name] = "unknown"
    return found


def score_name(score: Score) -> str:
    """A name under which only scores lie that differ in nothing but NFE: `fd n1000`."""
    parts = [score.name, "floor" if score.subject == "floor" else ""]
    parts += [f"n{score.n}" if score.n else "", f"stream{score.seed}" if score.seed else ""]
    parts += ["adaptive" if score.nfe == ADAPTIVE else ""]
    return " ".join(filter(None, parts))


def axis(score: Score) -> int:
    """The NFE, for an axis that begins at 0: scores of the whole run lie there."""
    return max(0, score.nfe)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to ourselves what a library is told by those that it stands on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""The checks as a class of pytest tests to inherit; the only module here that needs pytest."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from torch import nn

from flowbench import plugins
from flowbench.data.base import Data
from flowbench.discovery.reading import kebab
from flowbench.records import FlowbenchError
from flowbench.testing.catalogue import BY_ID, CHECKS, Examination
from flowbench.testing.check import Check
from flowbench.testing.laws import Affine
from flowbench.testing.subject import Subject

LATEST = pytest.StashKey[tuple[type, Examination]]()  # tests of one class follow each other


class ContractWarning(UserWarning):
    """What a check found that may be meant so."""


class MethodContract:
    """Set `method` to an instance; `nfes` to what it can sample with.

    `kind` is what it learns from, "image" or "vector", `order` that of its solver. `skips` maps
    ids of checks to the reasons why they are left out. `exact(law, data)`, a staticmethod, gives
    the network that is right for a `flowbench.testing.Affine` law; without it, known forms are
    tried. With `quick`, the checks that take long are left out.
    """

    method: Any
    kind: ClassVar[str] = "image"
    nfes: ClassVar[tuple[int, ...]] = (1, 2, 5)
    order: ClassVar[float] = 1.0
    skips: ClassVar[Mapping[str, str]] = {}
    exact: ClassVar[Callable[[Affine, Data], nn.Module] | None] = None
    quick: ClassVar[bool] = False

    @pytest.mark.parametrize("check", [pytest.param(c, id=f"{c.id}-{c.name}") for c in CHECKS])
    def test_contract(
        self,
        check: Check,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        if check.id in self.skips:
            pytest.skip(f"{check.id}: {self.skips[check.id]}")
        if check.slow and self.quick:
            pytest.skip(f"{check.id} takes long")
        result = _examination(type(self), request, tmp_path_factory).result(check)
        said = f"{check.id}: {check.title}: {result.why}"
        if result.outcome == "skip":
            pytest.skip(said)
        if result.outcome == "warn":
            warnings.warn(f"{said}; {result.advice}", ContractWarning, stacklevel=1)
        if result.outcome == "fail":
            pytest.fail(f"{said}\nto do: {result.advice}", pytrace=False)


def _examination(
    case: type[MethodContract], request: pytest.FixtureRequest, folders: pytest.TempPathFactory
) -> Examination:
    """The examination of a contract, one for all of its tests."""
    stash = request.session.stash
    if LATEST not in stash or stash[LATEST][0] is not case:
        unknown = sorted(case.skips.keys() - BY_ID.keys())
        if unknown:
            raise FlowbenchError(f"skips of {case.__name__}: no checks are called {unknown}")
        stash[LATEST] = (case, Examination(subject(case, folders)))
    return stash[LATEST][1]


def subject(case: type[MethodContract], folders: pytest.TempPathFactory) -> Subject:
    """What a contract is about."""
    cls = type(case.method)
    return Subject(
        load=lambda: cls,
        folder=folders.mktemp("contract"),
        name=name_of(cls),
        given=case.method,
        kind=case.kind,
        nfes=tuple(case.nfes),
        order=case.order,
        exact=case.exact,
    )


def name_of(cls: type) -> str:
    """The name under which a method is known, or would be."""
    for name, plugin in plugins.methods().items():
        if (plugin.module, plugin.attribute) == (cls.__module__, cls.__qualname__):
            return name
    return str(getattr(cls, "name", None) or kebab(cls.__name__))

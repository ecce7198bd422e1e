"""Several processes of one run: the first plans, stores and speaks, and the others follow it.

All go through `runner.run`, whose steps meet; what the others yield is what the first one stores.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from flowbench import blame, ranks, runner, torchrun
from flowbench.planning import Plan, Setup
from flowbench.records import Diverged, FlowbenchError, RunFailed


@contextmanager
def led(generation: int) -> Iterator[None]:
    """Take the other ranks along into the block, in which the first one makes a run.

    All meet what Diverged says. Any other error is the first one's own, which leaves them: they
    may wait for it anywhere.
    """
    ranks.told(generation)
    try:
        yield
    except Diverged:
        raise
    except Exception:
        ranks.leave()
        raise


def follow(plans: Sequence[Plan], setup: Setup) -> None:
    """Do what the first rank does of these plans, and keep nothing of it.

    Raises RunFailed, in one line, for what went wrong in a plugin.
    """
    for plan in plans:
        while (generation := ranks.told(0)) > 0:
            with suppress(Diverged), _blamed(plan, setup), blame.memory(plan):
                for _ in runner.run(plan, setup, set(), generation):
                    pass


@contextmanager
def _blamed(plan: Plan, setup: Setup) -> Iterator[None]:
    try:
        yield
    except FlowbenchError:
        raise
    except Exception as error:
        own = ranks.own()
        log = setup.folder / f"{plan.spec.name}.error-{own}.log"
        raise RunFailed(f"rank {own}: {blame.told(error, plan, log)}") from error


def settle() -> bool:
    """Tell the others that the plan at hand is done; whether the first can go on with them."""
    if torchrun.launched() > 1 and ranks.count() == 1:
        return False
    ranks.told(0)
    return True

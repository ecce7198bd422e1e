"""Writes databases of results whose numbers a test knows, through the store itself."""

from flowbench.records import Budget, Score, Spec
from flowbench.store import Store

DATA = "d" * 64
MACHINE = {"python": "3.11.7", "torch": "2.15.0", "device": "one CPU", "threads": 1}
# As an image metric stores it.
IMAGES = {
    "ema": True,
    "weights": "a" * 64,
    "extractor": {"name": "inception", "network": "Inception-v3", "resize": "bilinear"},
    "reference": {"data": DATA, "split": "train", "rows": 50_000},
    "estimator": "unbiased, all rows",
}
TIMED = {"batch": 100, "device": "one CPU", "threads": 1}


def spec(method="cfm", seed=0, **more):
    """A run on digits with a small budget."""
    given = {"dataset": "digits", "budget": Budget(10, 2), "data": DATA} | more
    return Spec(method=method, seed=seed, **given)


def score(value, name="fd", nfe=1, n=100, goal="min", **more):
    """A number of the model at one NFE."""
    given = {"protocol": IMAGES if n else {}} | more
    return Score(name, value, nfe, n=n, goal=goal, **given)


def floor(value, name="fd", n=100, **more):
    """Real data in the model's place."""
    return score(value, name, nfe=-1, n=n, subject="floor", **more)


def timed(value, name="ms-per-sample", **facts):
    """A time, with the facts of the machine that differ from the usual ones."""
    return score(value, name, n=0, protocol=TIMED | facts)


def let_in(monkeypatch):
    """Let words in that no flowbench stores, to see what would become of them further inside."""
    from flowbench.store import attempts, guard

    monkeypatch.setattr(attempts, "texts", lambda value: [])
    monkeypatch.setattr(guard, "prove", lambda connection, place: None)


def put(database, run, *scores, machine=MACHINE, error=None):
    """Store an attempt at a run, which an `error` ends."""
    try:
        with Store(f"sqlite:///{database}").attempt(run, machine) as attempt:
            for one in scores:
                attempt.add(one)
            if error is not None:
                raise error
    except Exception as raised:
        if raised is not error:
            raise

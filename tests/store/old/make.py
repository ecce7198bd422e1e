"""Makes a database of an older schema with the code of that time.

    git archive 0b4453f^ flowbench | tar -x -C /tmp/old0001
    PYTHONPATH=/tmp/old0001 python tests/store/old/make.py tests/store/old schema-0001
    git archive 9658fb0 flowbench | tar -x -C /tmp/old0002
    PYTHONPATH=/tmp/old0002 python tests/store/old/make.py tests/store/old schema-0002

Beside the database lies what that code reads in it, as JSON: a later flowbench must read the same.
"""

import json
import math
import os
import socket
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from flowbench.records import Budget, Diverged, Score, Spec
from flowbench.store import Store

NOBODY = 4_194_999  # beyond the highest number of a process
SPEC = Spec("lmm", "digits", 0, Budget(10, 2), {"k": 1}, {"k": 1}, "edm-key", "data", "code", "0.1")
ENVIRONMENT = {"python": "3.11.7", "torch": "2.4", "device": "cpu", "packages": {"numpy": "2"}}


def fill(store):
    """A run that went well twice, one that diverged, one interrupted, one whose worker died."""
    for number in range(2):
        with store.attempt(SPEC, ENVIRONMENT, force=bool(number)) as attempt:
            for nfe, value in ((1, 0.1 + 0.2 + number), (2, math.nan), (4, math.inf)):
                attempt.add(Score("fid", value, nfe, n=100, goal="min", protocol={"dims": 64}))
            attempt.add(Score("fid", 0.5, subject="floor", n=100, goal="min"))
            attempt.note("a note, and a letter that is not ASCII: ü")
            attempt.artifact("network", f"{SPEC.name}/network.safetensors", "00" * 32, 5)
    for seed, error in ((1, Diverged("the loss became nan at step 3")), (2, KeyboardInterrupt())):
        try:
            with store.attempt(replace(SPEC, seed=seed), ENVIRONMENT) as attempt:
                attempt.add(Score("fid", 3.0, 1, n=100, goal="min"))
                raise error
        except (Diverged, KeyboardInterrupt):
            pass
    killed = store.attempt(replace(SPEC, seed=3), {})
    killed.__enter__().add(Score("fid", 4.0, 1, n=100, goal="min"))
    return killed  # and whoever lets go of it ends it


def read(store):
    """All scores and attempts, numbers as they are written."""
    parts = ("name", "value", "nfe", "subject", "n", "seed", "goal")
    measured = [
        [m.run, m.attempt, m.generation, *(str(getattr(m.score, part)) for part in parts)]
        for m in store.measured()
    ]
    words = ("id", "run", "number", "generation", "outcome", "error", "started", "ended")
    tried = [[*(getattr(t, word) for word in words), asdict(t.spec)] for t in store.tried()]
    return {"measured": measured, "tried": tried}


def main(folder, name):
    os.getpid, socket.gethostname = (lambda: NOBODY), (lambda: "a machine of old")
    path = folder / f"{name}.db"
    store = Store(f"sqlite:///{path}")
    killed = fill(store)
    path.with_suffix(".json").write_text(json.dumps(read(store), indent=1) + "\n")
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=delete")
        connection.execute("vacuum")
    assert killed
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

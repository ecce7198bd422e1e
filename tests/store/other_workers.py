"""Workers that are not this process: on another machine, dead, or alive under another number."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowbench.records import Spec
from flowbench.store import Attempt, Store, leases


class Worker:
    """Opens attempts as if it were another process; `birth` is that of a real one if not given."""

    def __init__(self, host: str, pid: int, birth: str | None = None):
        self.host, self.pid = host, pid
        self.birth = leases.birth(pid) if birth is None else birth

    @contextmanager
    def at_work(self, store: Store, spec: Spec, **options: Any) -> Iterator[Attempt]:
        """An open attempt of this worker; it is closed by nobody but the test."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "host", lambda: self.host)
            patch.setattr(os, "getpid", lambda: self.pid)
            patch.setattr(leases, "birth", lambda pid: self.birth)
            context = store.attempt(spec, {}, **options)
            attempt = context.__enter__()
        yield attempt
        context.__exit__(None, None, None)

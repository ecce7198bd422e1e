"""One job on its node: it beats for itself, ends itself at its limit, and stores where it is."""

import os
import pickle
import signal
import socket
import threading
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flowbench import environment, execution, interruption, limits, process_table, processes
from flowbench.execution import Ended, Job, Opened
from flowbench.heartbeat import Heart
from flowbench.launchers import post
from flowbench.launchers.errand import Errand
from flowbench.records import FlowbenchError
from flowbench.store import Store
from flowbench.training import Progress

EVERY = 2.0  # seconds between two messages about progress
Send = Callable[[Any], None]


@dataclass
class Stay:
    """What is known of a job here: its attempt, and why it was asked to end, if it was."""

    attempt: int | None = None
    requeued: bool = False
    lost: bool = False
    late: str = ""
    gone: threading.Event = field(default_factory=threading.Event)

    def ended(self) -> Ended | None:
        """How it ends now that it was interrupted; None if it is to be gone on with."""
        if self.late:
            return Ended(self.late)
        return Ended("another worker has taken it over", "elsewhere") if self.lost else None


def carry_out(errand: Errand) -> Ended | None:
    """Do a job, and say how it ended; None for one that was asked to end and has stored where.

    Where the engine asks by SIGUSR2, it queues the job again as soon as that is stored.
    """
    send, stay = partial(post.send, errand.post), Stay()
    send(post.Begun(socket.gethostname()))
    with _requeue(stay), interruption.terminable():
        try:
            ended: Ended | None = processes.done(
                partial(_work, errand=errand, stay=stay), pickle.loads(errand.job), _thinned(send)
            )
        except KeyboardInterrupt:
            ended = stay.ended()
        stay.gone.set()
        send(ended or post.Paused())
    return ended


@contextmanager
def _requeue(stay: Stay) -> Iterator[None]:
    """End by SIGUSR2 as by SIGTERM, and then do what the engine wanted to do at that signal."""
    before = signal.getsignal(signal.SIGUSR2)
    if not callable(before):
        yield
        return

    def hear(number: int, frame: Any) -> None:
        stay.requeued = True
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
    if stay.requeued and stay.ended() is None:
        before(signal.SIGUSR2, None)


def _thinned(send: Send) -> Send:
    """Sends everything but progress, of which a little is enough."""
    last = -EVERY

    def sometimes(message: Any) -> None:
        nonlocal last
        if isinstance(message, Progress):
            if time.monotonic() - last < EVERY:
                return
            last = time.monotonic()
        send(message)

    return sometimes


def _work(job: Job, send: Send, errand: Errand, stay: Stay) -> Ended:
    """Do it with a heart of its own, and within its time."""
    job = _here(job, errand.gpus)
    store, stop = Store(job.url), interruption.CURRENT.get()

    def lost(attempt: int) -> None:
        stay.lost = True
        if stop is not None:
            stop.patient = False
        interrupt_main(signal.SIGTERM)

    with Heart(store, lost) as heart:

        def heard(message: Any) -> None:
            if isinstance(message, Opened):
                stay.attempt = message.attempt
                heart.add(message.attempt)
            send(message)

        if errand.timeout is not None:
            words = (errand.timeout, store, stay, send)
            threading.Thread(target=_expire, args=words, daemon=True).start()
        return execution.work(job, heard)


def _here(job: Job, gpus: float) -> Job:
    """The job with the device of this node; on a processor the sums hang on the threads.

    Raises FlowbenchError where a GPU was asked for and there is none.
    """
    device = environment.device(job.setup["device"])
    if gpus and device == "cpu" and job.setup["device"] == "auto":
        raise FlowbenchError(
            f"gpus={gpus:g} were asked for, but torch finds none on {socket.gethostname()}:"
            " choose another partition, or say gpus=0"
        )
    threads = job.threads or int(device == "cpu")
    return replace(job, setup=job.setup | {"device": device}, threads=threads)


def _expire(seconds: float, store: Store, stay: Stay, send: Send) -> None:
    """End this process and all that it has started so long from now, and store that before."""
    if stay.gone.wait(seconds):
        return
    stay.late = f"stopped after {limits.span(seconds)}, its limit (--timeout)"
    deadline = time.monotonic() + processes.BRIEF
    storing = threading.Thread(target=_conclude, args=(store, stay), daemon=True)
    storing.start()
    storing.join(processes.PATIENCE)
    send(Ended(stay.late))
    os.kill(os.getpid(), signal.SIGTERM)
    if not stay.gone.wait(deadline - time.monotonic()):
        for number in (*process_table.descendants(os.getpid()), os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)


def _conclude(store: Store, stay: Stay) -> None:
    with suppress(FlowbenchError):
        if stay.attempt is not None:
            store.conclude(stay.attempt, "timeout", stay.late)

"""Runs a function in several processes that are ranks of one run, as torchrun starts them."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from flowbench import ranks
from flowbench.records import FlowbenchError

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["flowbench.training", "flowbench.runner", "several_ranks"])
LONGEST = 120.0  # seconds


def run(world: int, work: Callable[..., Any], *given: Any) -> list[Any]:
    """What `work(*given)` returns on each of `world` ranks, or the error that it raised."""
    return launch(world, _joined, work, *given)


def _joined(work: Callable[..., Any], *given: Any) -> Any:
    with ranks.joined("cpu"):
        try:
            return work(*given)
        except (FlowbenchError, KeyboardInterrupt) as error:
            return error


def launch(world: int, work: Callable[..., Any], *given: Any) -> list[Any]:
    """The same of work that joins the others by itself; EOFError where a rank has died."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    place["TORCHELASTIC_RUN_ID"] = "tests"
    started = [_start(rank, world, place, work, given) for rank in range(world)]
    try:
        return [_answer(pipe) for _, pipe in started]
    finally:
        for child, _ in started:
            child.kill()
            child.join()


def _start(rank: int, world: int, place: dict[str, str], work: Any, given: Any) -> tuple[Any, Any]:
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    ours, theirs = CONTEXT.Pipe()
    child = CONTEXT.Process(
        target=_rank, args=({**os.environ, **place, **own}, theirs, work, given)
    )
    child.start()
    theirs.close()
    return child, ours


def _answer(pipe: Any) -> Any:
    """What a rank has said; EOFError where it has died."""
    assert pipe.poll(LONGEST), "a rank says nothing"
    try:
        return pipe.recv()
    except EOFError as error:
        return error


def _rank(environment: dict[str, str], pipe: Any, work: Callable[..., Any], given: Any) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    pipe.send(work(*given))
    pipe.poll(LONGEST)

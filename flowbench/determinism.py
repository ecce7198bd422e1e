"""Owns which kernels a run on a GPU may use: the same bits every time, float32 in full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # NVIDIA's word for one order of its sums


@contextmanager
def mode(on: bool) -> Iterator[None]:
    """Only kernels that give the same bits every time, while the block runs, if `on`.

    Raises RuntimeError, inside the block, for an operation that has no such kernel. On a CPU the
    bits are the same without it.
    """
    if not on:
        yield
        return
    os.environ.setdefault(*CUBLAS)  # read when cuBLAS is first used
    before, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn
    try:
        torch.use_deterministic_algorithms(True)
        with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def without_tf32(deterministic: bool = False) -> Iterator[None]:
    """Compute float32 in full: TF32, which cuDNN takes unless told otherwise, moves an FID."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        flags = {"deterministic": deterministic, "allow_tf32": False}
        with torch.backends.cudnn.flags(enabled=True, **flags):
            yield
    finally:
        torch.set_float32_matmul_precision(before)

"""New packages for `flowbench new`: a method, a data set or a metric, complete and working."""

from flowbench.scaffold.naming import Names, check_free
from flowbench.scaffold.original import Original, find
from flowbench.scaffold.package import Kind, Order, files, next_steps
from flowbench.scaffold.writing import write

__all__ = [
    "Kind",
    "Names",
    "Order",
    "Original",
    "check_free",
    "files",
    "find",
    "next_steps",
    "write",
]

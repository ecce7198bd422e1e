"""Results as one zip: rows, files and a manifest of hashes, for others to check and to merge."""

from flowbench.bundle.joining import merge
from flowbench.bundle.writing import export

__all__ = ["export", "merge"]

"""The catalogue of data sets. Loading one imports torch; listing them does not."""

from flowbench.data.catalogue import datasets

__all__ = ["datasets"]

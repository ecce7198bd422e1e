"""Published checkpoints as networks of flowbench: read without running code that they carry."""

from flowbench.imports.imported import Imported, save
from flowbench.imports.reading import read

__all__ = ["Imported", "read", "save"]

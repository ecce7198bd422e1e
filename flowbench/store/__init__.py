"""The results database: attempts go in score by score, records come out."""

from flowbench.store.attempts import Attempt
from flowbench.store.storage import Store

__all__ = ["Attempt", "Store"]

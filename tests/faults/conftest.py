"""What all tests of faults use: their runs are small, and are to be quick."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick(coarse_likelihood):
    """Nobody looks at the likelihood here."""

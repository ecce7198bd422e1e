"""What hostile input meets in tests: a limit on memory, so that a bomb is a failure, not an end."""

import resource

import pytest

MORE = 2**32  # bytes beside what is used


@pytest.fixture
def little_memory():
    """Let whatever takes a declared size for granted fail (charts need more than this)."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)

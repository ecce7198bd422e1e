"""A plugin whose needs are not met."""

import a_package_that_nobody_has  # noqa: F401

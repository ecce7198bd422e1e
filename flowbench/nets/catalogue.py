"""The backbones that come with flowbench, as a plugin gives them."""

from flowbench.hookspecs import hookimpl
from flowbench.nets.settings import NETWORKS, Network


@hookimpl
def networks() -> list[type[Network]]:
    """The U-Nets of EDM, and of OpenAI as torchcfm has it."""
    return list(NETWORKS.values())

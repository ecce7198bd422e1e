"""Finding plugins: installed ones, loose files and folders, none imported before it is used."""

from flowbench.discovery.doors import everything, from_file
from flowbench.discovery.loading import Broken, load
from flowbench.discovery.plugin import Plugin

__all__ = ["Broken", "Plugin", "everything", "from_file", "load"]

"""An observer that is always on: a line for whatever happens, in a file of the run's folder."""

from flowbench import hookimpl


@hookimpl
def observe(spec, event, folder):
    """Keep a line such as `cfm: Ended(outcome='ok', error='')`."""
    with (folder / "loud.txt").open("a", encoding="utf-8") as file:
        file.write(f"{spec.method}: {event}\n")

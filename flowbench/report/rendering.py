"""Which plugin writes a report, and what becomes of its mistakes."""

import traceback
from pathlib import Path

from flowbench import plugins
from flowbench.discovery import Plugin, catalogues
from flowbench.entries import ReportFormat
from flowbench.records import FlowbenchError, RunFailed
from flowbench.report.request import Report


def by_ending(path: Path) -> str:
    """The format that the name of a file asks for; raises FlowbenchError where none does."""
    formats = plugins.reports().values()
    fitting = [
        (len(ending), form.name)
        for form in formats
        for ending in form.endings
        if path.name.lower().endswith(ending.lower())
    ]
    if not fitting:
        known = ", ".join(dict.fromkeys(ending for form in formats for ending in form.endings))
        raise FlowbenchError(f"{path} ends in none of {known}: add --format")
    return max(fitting, key=lambda pair: pair[0])[1]  # the first of equally long ones


def content(name: str, report: Report) -> str | bytes:
    """The report in the format `name`.

    Raises FlowbenchError where two plugins claim the name, RunFailed for a third party's format
    that fails.
    """
    plugins.refuse_clash("reports", name)
    plugin, form = catalogues.claims("reports")[name][0]
    if plugin.distribution == catalogues.OWN:
        return form.render(report)
    return _strange(plugin, form, report)


def _strange(plugin: Plugin, form: ReportFormat, report: Report) -> str | bytes:
    """What a third party's format makes, which may be anything."""
    said = f"format {form.name} from {plugin.origin}"
    try:
        made = form.render(report)
    except FlowbenchError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        place = _place(error, plugin)
        raise RunFailed(f"{said} failed{place}: {type(error).__name__}: {words}") from error
    if not isinstance(made, str | bytes):
        raise RunFailed(f"{said} returned {type(made).__name__}, and not text or bytes")
    return made


def _place(error: Exception, plugin: Plugin) -> str:
    """The innermost line of the plugin's own file, if it was one of them."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if plugin.path and Path(frame.filename) == plugin.path]
    return f" ({plugin.path.name}:{own[-1].lineno})" if own and plugin.path else ""

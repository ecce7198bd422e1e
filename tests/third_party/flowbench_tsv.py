"""A format of reports: tab-separated values, a line for each number."""

from flowbench import ReportFormat, hookimpl

NAMES = ("dataset", "label", "metric", "nfe", "mean", "sd", "seeds")


def tsv(report):
    """The numbers that `report` holds, unrounded."""
    lines = [NAMES, *([record[name] for name in NAMES] for record in report.records())]
    return "".join("\t".join(map(word, line)) + "\n" for line in lines)


def word(value):
    """A value without tabs and line breaks, which a label may have."""
    return "" if value is None else " ".join(str(value).split())


@hookimpl
def reports():
    return [ReportFormat("tsv", "a line for each number", (".tsv",), tsv)]

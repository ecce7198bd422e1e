"""The formats of reports that come with flowbench, as a plugin gives them."""

from flowbench.entries import ReportFormat
from flowbench.hookspecs import hookimpl
from flowbench.report.request import Report


@hookimpl
def reports() -> list[ReportFormat]:
    """For people, for papers and for programs."""
    return [
        ReportFormat("table", "aligned columns of text", (".txt",), _table),
        ReportFormat("md", "tables of Markdown", (".md",), _markdown),
        ReportFormat("latex", "tables of LaTeX, with booktabs", (".tex",), _latex),
        ReportFormat("csv", "one row for each number", (".csv",), _csv),
        ReportFormat("json", "one record for each number", (".json",), _json),
        ReportFormat("html", "a page with charts and pictures", (".html", ".htm"), _html),
    ]


def _table(report: Report) -> str:
    from flowbench.report import terminal

    return terminal.plain(report.tables())


def _markdown(report: Report) -> str:
    from flowbench.report import text

    return text.markdown(report.tables())


def _latex(report: Report) -> str:
    from flowbench.report import latex

    return latex.latex(report.tables())


def _csv(report: Report) -> str:
    from flowbench.report import text

    return text.as_csv(report.view.sections, report.view.failed)


def _json(report: Report) -> str:
    from flowbench.report import text

    return text.as_json(report.view)


def _html(report: Report) -> str:
    from flowbench.report.charts import export
    from flowbench.report.page import page

    return page.html(report.document(figures=True), export.svg)

"""The report as one HTML file that opens from disk: template, style and script, all inlined."""

from flowbench.report.page.page import html

__all__ = ["html"]

"""The report: one self-contained HTML page about runs and comparisons."""

from bayesdyn.report.page import write_report

__all__ = ["write_report"]

"""The report: one page for a run, an experiment and best-of-n."""

from framework.report.page import write_report

__all__ = ["write_report"]

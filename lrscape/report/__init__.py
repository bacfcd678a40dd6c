"""Runs as one page: a single HTML file that opens from disk and needs no network."""

from lrscape.report.page import render as render
from lrscape.report.page import write_report as write_report

__all__ = ["render", "write_report"]

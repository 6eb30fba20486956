"""A run as one HTML file that opens anywhere: no network, no script, light and dark, phone and paper."""

from ownlm.report.page import write_report

__all__ = ["write_report"]

"""How a route's variants turn out: numbers, comparisons, problems and a verdict, of what was counted.

Rule: pure functions. What they are given is a ``Ledger`` (what was counted) and a ``Snapshot`` (what is in force).
"""

from gateway.report.route_report import report, update_watermark

__all__ = ["report", "update_watermark"]

"""Guardrails: what no variant may break, whatever its primary metric says."""

from gateway.report.guardrails.judging import FAILING, STATES, Guarded, State, guarded, shown
from gateway.report.guardrails.lasting import lasting
from gateway.report.guardrails.measures import MEASURES, Measured

__all__ = ["FAILING", "MEASURES", "STATES", "Guarded", "Measured", "State", "guarded", "lasting", "shown"]

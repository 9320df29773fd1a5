"""What the admin port is given of the controller.

Rule: the parts themselves, and no second description of them: a handler calls what they have.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.control.access.named_tokens import Tokens
from gateway.control.command.perform import Commands
from gateway.control.event_log import EventLog
from gateway.control.plan.in_force import InForce
from gateway.control.queries import Queries
from gateway.control.readiness import Readiness
from gateway.control.registry.version_slots import VersionSlots
from gateway.control.upkeep.erasure import Erasures


@dataclass(frozen=True, slots=True)
class Controller:
    """The parts of the controller that operators see and act on."""

    in_force: InForce
    queries: Queries
    readiness: Readiness
    erasures: Erasures
    event_log: EventLog
    commands: Commands
    tokens: Tokens
    slots: VersionSlots

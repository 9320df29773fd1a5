"""Who sends a request, and its query's numbers.

Rule: a parameter is either read or refused with a 400 that says which values are valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.admin.guard import SCOPE, WHO
from gateway.control.acts import Act
from router.settings.tokens import Scope

#: The last millisecond of the year 9999: the largest number that any parameter needs.
LATEST_MS: Final = 253_402_300_799_999
_MOST_DIGITS: Final = 15
_MOST_NAME: Final = 64
_MOST_NUMBERS: Final = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, from where, and what the sender may do.

    ``who`` names one user or token wherever a request comes from; ``known`` says whether that was proved. Where the
    admin port asks for no token, it is what the command line says of its user, and may be anybody.
    """

    who: str
    scope: Scope
    known: bool
    address: str | None = None
    said: str | None = None

    @property
    def sentence(self) -> str:
        """All of it, as events show it."""
        found = [] if self.said is None else [f"{self.said} by the command line"]
        if self.known:
            found.append(self.who)
        if self.address is not None:
            found.append(f"from {self.address}")
        return ", ".join(found)


def asker(request: Request) -> Asked:
    """Return who sends the request."""
    given = request.headers.get("turnout-user", "")
    said = given if given.isprintable() and 0 < len(given) <= _MOST_NAME else None
    address = None if request.client is None else request.client.host
    who, scope = request.scope.get(WHO, ""), request.scope.get(SCOPE, "read")
    return Asked(who or said or address or "unknown", scope, bool(who), address, said)


def act_of(request: Request) -> Act:
    """Return who asks for what the request does."""
    asked = asker(request)
    return Act("api", asked.sentence, asked.who)


def author(request: Request) -> str:
    """Return who sends the request, as far as that is known: the command line's user, the token, the address."""
    return asker(request).sentence


def number(request: Request, name: str, default: int, *, least: int = 0, most: int = LATEST_MS) -> int:
    """Return the whole number of a parameter. Raises HTTPException (400) unless ``least`` <= it <= ``most``."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS and least <= int(given) <= most:
        return int(given)
    raise HTTPException(400, f"{name} must be a whole number from {least:,} to {most:,}, got {given[:20]}")


def positive_numbers(request: Request, name: str) -> list[float]:
    """Return the numbers of a parameter, between commas; none without it. Raises HTTPException (400)."""
    given = request.query_params.get(name)
    if given is None:
        return []
    found = []
    for word in given.split(",")[: _MOST_NUMBERS + 1]:
        try:
            found.append(float(word[:_MOST_NAME]))
        except ValueError:
            found.append(0.0)
    if len(found) > _MOST_NUMBERS or not all(0 < one <= LATEST_MS for one in found):
        said = f"at most {_MOST_NUMBERS} numbers greater than 0, as in 0.01,0.02"
        raise HTTPException(400, f"{name} must be {said}, got {given[:_MOST_NAME]}")
    return found

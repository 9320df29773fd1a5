"""A route that moves by itself, as its page shows it: its steps, what the present one waits for, what people can do.

Rule: nothing is judged here; it shows the report's ``rollout``, and the events as they were stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.amounts import percent
from gateway.report.verdict_status import STATUSES

Report = Mapping[str, Any]

#: Kinds of the log of events that are about where a route stands.
KINDS: Final = frozenset({"rollout", "act"})

#: What a page asks a person for: the condition of a wait, and how urgent it is.
_FOR_A_PERSON: Final = ("person", "approval")

_STEPS: Final = {
    "running": ("approve", "advance", "pause", "rollback", "restart", "promote"),
    "paused": ("approve", "resume", "advance", "rollback", "restart", "promote"),
    "rolled_back": ("restart",),
    "done": ("rollback", "restart"),
}
_HELD: Final = {
    "running": ("pause", "rollback"),
    "paused": ("resume", "rollback", "restart"),
    "rolled_back": ("resume", "restart"),
    "done": ("rollback",),
}


def card(report: Report) -> dict[str, Any] | None:
    """Return what the page of a route shows of where it stands; None where nothing moves it."""
    said = report.get("rollout")
    if said is None:
        return None
    steps = [_step(index, one, said) for index, one in enumerate(said["steps"])]
    verbs = _STEPS if steps else _HELD
    return {
        "state": said["state"],
        "style": _style(said),
        "number": said["number"],
        "step": said["step"] + 1,
        "steps": steps,
        "because": said["because"],
        "since": said["since"],
        "waits": said["waits_for"],
        "until": said["until"],
        "shares": _shares(report, said),
        "held": said["held"],
        "by_hand": None if said["by_hand"] is None else "{verb} by {who}, {at}".format(**said["by_hand"]),
        "verbs": verbs[said["state"]],
    }


def _style(said: Mapping[str, Any]) -> str:
    """Return the class of a state: one that waits for a person looks so while it runs."""
    waits = any(one["condition"] in _FOR_A_PERSON for one in said["waits_for"])
    return "waiting" if waits and said["state"] == "running" else str(said["state"])


def _step(index: int, one: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    over = said["state"] == "done"
    place = "done" if over or index < said["step"] else "now" if index == said["step"] else "next"
    share = one["share"] if one["shadow"] is None else one["shadow"]
    text = percent(share) if one["shadow"] is None else f"shadow {percent(share)}"
    width = round(100 * share, 1) if one["shadow"] is None else 0.0
    return {"text": text, "place": place, "width": width, "conditions": ", ".join(one["conditions"])}


def _shares(report: Report, said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the set and the actual share of each variant, with the calls behind that."""
    return [
        {
            "name": one["name"],
            "shade": shade,
            "set": said["share"].get(one["name"], {"set": one["share"]})["set"],
            "actual": said["share"].get(one["name"], {}).get("actual"),
            "calls": said["served"]["calls"].get(one["name"], 0),
        }
        for shade, one in enumerate(report["variants"])
    ]


def history(events: Iterable[Mapping[str, Any]], route: str, most: int = 50) -> list[dict[str, Any]]:
    """Return what happened to a route, the newest first: by itself and by hand, each with its evidence in words."""
    found = [one for one in events if one["route"] == route and one["kind"] in KINDS]
    return [{"change": one.get("change"), "lines": evidence(one.get("move", {})), **one} for one in found[::-1][:most]]


def evidence(move: Mapping[str, Any]) -> list[str]:
    """Return what a move was decided on: its reason, the units it had seen, and every guardrail that was not clean."""
    known = move.get("evidence", {})
    lines = [f"reason given: {move['reason']}"] if move.get("reason") else []
    lines += [f"ticket {move['ticket']}"] if move.get("ticket") else []
    if units := known.get("units"):
        lines.append(f"units {', '.join(f'{name} {n:,}' for name, n in units.items())}")
    for one in known.get("guardrails", ()):
        if one["state"] == "broken":
            lines.append(f"{one['metric']} of {one['variant']} is broken: {one['why']}")
    return lines + list(known.get("errors", ()))


def hands(reports: Iterable[Report], frozen: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the routes that need a hand, the worst first, each with why: failing, frozen, paused, waiting.

    ``frozen`` has the variant that each frozen route is sent to.
    """
    found: list[tuple[int, dict[str, str]]] = []
    for report in reports:
        name, said = report["route"], report.get("rollout")
        if report["verdict"]["status"] in ("failing", "invalid"):
            status = report["verdict"]["status"]
            why = report["verdict"]["reason"] or report["verdict"]["sentence"]
            found.append((tuple(STATUSES).index(status), _hand(name, status, status, why)))
        if name in frozen:
            found.append((10, _hand(name, "frozen", "frozen", f"a person sends everything to {frozen[name]}")))
        if said is None:
            continue
        if said["state"] in ("rolled_back", "paused"):
            rank = 11 if said["state"] == "rolled_back" else 12
            found.append((rank, _hand(name, said["state"], said["state"], said["because"] or "")))
        waits = [one["sentence"] for one in said["waits_for"] if one["condition"] == "approval"]
        if waits and said["state"] == "running":
            found.append((13, _hand(name, "waiting", "waits for approval", "; ".join(waits))))
        held = [one["sentence"] for one in said["waits_for"] if one["condition"] in ("no_data", "measuring_error")]
        if held:
            found.append((14, _hand(name, "waiting", "held up", "; ".join(held))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _hand(route: str, style: str, state: str, why: str) -> dict[str, str]:
    return {"route": route, "style": style, "state": state.replace("_", " "), "why": why}

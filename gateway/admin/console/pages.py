"""How a page is written: its templates, the words and filters that they use, and its style sheet.

Rule: a template that asks for something that is not there fails in a test, and never shows an empty place.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from gateway import amounts
from gateway.admin.console.labels import labelled
from gateway.admin.controller import Controller
from gateway.files.overrides import Override
from gateway.moments import age, to_the_second
from gateway.report.verdict_status import STATUSES

STATUS_WORDS: Final = {status: status.replace("_", " ") for status in STATUSES}

STYLE: Final = files("gateway.admin").joinpath("static", "console.css").read_bytes()
_STYLE_TAG: Final = blake2b(STYLE, digest_size=6).hexdigest()

_pages = Environment(
    loader=PackageLoader("gateway.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.globals["style_tag"] = _STYLE_TAG
_pages.globals["words"] = STATUS_WORDS
_pages.globals["amounts"] = amounts
_pages.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
_pages.filters["count"] = lambda value: f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
_pages.filters["at"] = to_the_second
_pages.filters["age"] = age
_pages.filters["milliseconds"] = lambda value: "–" if value is None else f"{value:.3g} ms"


@dataclass(frozen=True, slots=True)
class Pages:
    """Writes pages: each says what is frozen, and whether counting stands still."""

    controller: Controller

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        values |= {
            "snapshot": self.controller.in_force.snapshot,
            "progress": self.controller.readiness.progress(),
            "frozen": self.held(),
        }
        return HTMLResponse(labelled(_pages.get_template(template).render(**values)), status)

    def held(self) -> dict[str, Override]:
        """Return the acts that froze routes, by route, as this node's workers have them: the store may be down."""
        acts = self.controller.in_force.freezes.acts
        return {name: one for name, one in acts.items() if one.to is not None}

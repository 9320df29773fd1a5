"""How each kind of value is written in the operator's file, and what it may be.

Rule: a kind has one name, which the annotations in ``router.settings`` use. Types are checked as TOML has them; nothing
is converted silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import UTC, date, datetime
from types import GenericAlias, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from router.config import spellings
from router.config.findings import quoted
from router.config.slot_table import SLOT_SCHEMA, slot
from router.extract import Pointer
from router.records import LARGEST
from router.settings.keys import Bounds
from router.settings.placeholders import fill, placeholders
from router.settings.slots import VersionSlot
from router.settings.tokens import MOST_USER
from router.unit import TOKEN, reference


def type_of(declared: Any) -> Any:
    """Return the pydantic type that reads a key whose value is declared as ``declared``: of a dataclass, its table.

    Raises KeyError if the declaration names an unknown kind.
    """
    origin, inside = get_origin(declared), get_args(declared)
    if is_dataclass(declared):
        return KINDS["table"]
    if origin in (Union, UnionType):
        if bool in inside:
            return _SWITCH
        return Union[tuple(map(type_of, inside))]  # noqa: UP007
    if origin is tuple:
        return GenericAlias(tuple, tuple(map(type_of, inside)))
    if origin is Annotated:
        held, mark = inside[:2]
        if isinstance(mark, Bounds):
            return Annotated[held, Field(ge=mark.least, le=mark.most)]
        if mark == "some":
            return some(type_of(held))
        if isinstance(mark, str):
            return KINDS[mark]
    return declared


def spelled(parse: Callable[[str], Any], pattern: str | None = None, *, keep: bool = False) -> Any:
    """Return the type of a text that ``parse`` accepts. The value is its result, or with ``keep`` the text."""

    def check(given: object) -> object:
        if not isinstance(given, str):
            raise PydanticCustomError("string_type", "must be text in quotes")
        value = parse(given)
        return given if keep else value

    schema = {"type": "string"} if pattern is None else {"type": "string", "pattern": f"^{pattern}$"}
    return Annotated[Any, BeforeValidator(check), WithJsonSchema(schema)]


def many(item: Any) -> Any:
    """Return the type of a list of items, read as a tuple."""
    return GenericAlias(tuple, (item, ...))


def some(items: Any) -> Any:
    """Return the type of a list that is not empty."""

    def check(given: object) -> object:
        if given == ():
            raise ValueError("must not be empty")
        return given

    return Annotated[items, BeforeValidator(check), Field(json_schema_extra={"minItems": 1})]


def mapping(name: Any, item: Any) -> Any:
    """Return the type of a table whose keys the operator chooses."""
    return GenericAlias(dict, (name, item))


#: Framing and hop-by-hop headers, which the gateway sets itself on each connection.
_CONNECTION_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _token(text: str) -> str:
    if not TOKEN.fullmatch(text):
        raise ValueError("must be the name of a header: letters, digits and -")
    return text.lower()


def _request_header(text: str) -> str:
    name = _token(text)
    if name in _CONNECTION_HEADERS:
        raise ValueError("must not be a header that belongs to the connection")
    return name


def _event_header(text: str) -> str:
    name = _request_header(text)
    if name == "content-type" or name.startswith("ce-"):
        raise ValueError("must not be a header that says what an event is")
    return name


def _each_once(given: object) -> object:
    if isinstance(given, dict):
        first: dict[str, str] = {}
        for name in given:
            if first.setdefault(name.lower(), name) != name:
                raise ValueError(f"must name a header once, and {quoted(first[name.lower()])} is {quoted(name)}")
    return given


def _headers(name: Callable[[str], str], value: Callable[[str], str]) -> Any:
    """Return the type of a table of headers, read as pairs of name and value."""
    table = mapping(spelled(name), spelled(value))
    return Annotated[table, BeforeValidator(_each_once), AfterValidator(lambda given: tuple(given.items()))]


def _line(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("must be one line of text, without spaces at its ends")
    return text


def _user(text: str) -> str:
    if len(text) > MOST_USER or text.startswith("token ") or not text.isprintable() or text != text.strip() or not text:
        raise ValueError(f'must be a user\'s name of at most {MOST_USER} characters, or "*"')
    return text


def _header_value(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII, as the value of a header")
    return _line(text)


def _sent_value(text: str) -> str:
    placeholders(text)
    return _header_value(text)


def _secret(text: str) -> str:
    if not placeholders(text) or fill(text, lambda _: "").strip():
        raise ValueError('must refer to the secret, as "${NAME}" or "${file:PATH}", and not hold it')
    return text


def _store(text: str) -> str:
    if text != "sqlite" and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError('must be "sqlite" or a URL that begins with "postgresql://"')
    userinfo, at, _ = text.partition("://")[2].rpartition("@")
    if (at and ":" in userinfo) or "password=" in text:
        raise ValueError("must not hold the password; put it into a file and name that in store_password_file")
    return text


def _share(given: float) -> float:
    if not 0 <= given <= 1:
        raise ValueError("must lie in [0, 1]")
    return given


def _missing(given: object) -> object:
    if given == "exclude":
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) < float("inf"):
        raise ValueError('must be "exclude" or a finite number')
    if abs(given) > LARGEST:
        raise ValueError(f'must be "exclude" or lie in [{-LARGEST:g}, {LARGEST:g}], as every value does')
    return float(given)


def _over_0(most: float) -> dict[str, Any]:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": most}


def _positive(given: float) -> float:
    if not 0 < given <= LARGEST:
        raise ValueError(f"must be greater than 0, and at most {LARGEST:g}")
    return given


def _not_negative(given: float) -> float:
    if not 0 <= given <= LARGEST:
        raise ValueError(f"must lie in [0, {LARGEST:g}]")
    return given


def _number(given: float) -> float:
    if abs(given) > LARGEST:
        raise ValueError(f"must lie in [{-LARGEST:g}, {LARGEST:g}], as every value does")
    return given


def _alpha(given: float) -> float:
    if not 0 < given <= MOST_ALPHA:
        raise ValueError(f"must be greater than 0, and at most {MOST_ALPHA:g}")
    return given


def _moment(given: object) -> object:
    """Return Unix milliseconds. TOML has dates and times of its own; a date is its first instant in UTC."""
    try:
        if isinstance(given, str):
            given = date.fromisoformat(given) if len(given) == len("2026-03-31") else datetime.fromisoformat(given)
        if isinstance(given, date) and not isinstance(given, datetime):
            given = datetime(given.year, given.month, given.day, tzinfo=UTC)
        if isinstance(given, datetime) and given.tzinfo is not None:
            return int(given.timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise ValueError('must be a date, "2026-03-31", or a time with its zone, "2026-03-31T12:00:00Z"')


def _bounds(given: object) -> object:
    if isinstance(given, tuple) and len(given) == 2:
        low, high = given
        if all(isinstance(end, int | float) and not isinstance(end, bool) for end in given) and low < high:
            if max(abs(low), abs(high)) > LARGEST:
                raise ValueError(f"must lie in [{-LARGEST:g}, {LARGEST:g}], as every value does")
            return given
    raise ValueError("must be two numbers, [low, high], the lower one first")


def _switch(given: object) -> object:
    if not isinstance(given, bool | dict):
        raise ValueError("must be true, false or a table")
    return given


#: What is on or off, or has settings of its own.
_SWITCH: Final = Annotated[
    Any, BeforeValidator(_switch), WithJsonSchema({"oneOf": [{"type": "boolean"}, {"type": "object"}]})
]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, AfterValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Duration = spelled(spellings.duration_ms, spellings.DURATION)
Missing = Annotated[
    float | None, BeforeValidator(_missing), WithJsonSchema({"oneOf": [{"const": "exclude"}, {"type": "number"}]})
]
Range = Annotated[tuple[float, float], BeforeValidator(_bounds)]
_Reference: Any = spelled(reference, "(header|cookie|query|body):.*", keep=True)
_Features: Any = Annotated[
    Annotated[many(_Reference), Tag("[list]")] | Annotated[mapping(Text, _Reference), Tag("[table]")],
    Discriminator(lambda given: "[list]" if isinstance(given, tuple) else "[table]"),
]

#: A larger chance of being wrong is no test.
MOST_ALPHA: Final = 0.2

KINDS: Final = {
    "text": Text,
    "line": spelled(_line),
    "share": Share,
    "positive_number": Annotated[float, AfterValidator(_positive), WithJsonSchema(_over_0(LARGEST))],
    "not_negative": Annotated[
        float, AfterValidator(_not_negative), WithJsonSchema({"type": "number", "minimum": 0, "maximum": LARGEST})
    ],
    "number": Annotated[
        float, AfterValidator(_number), WithJsonSchema({"type": "number", "minimum": -LARGEST, "maximum": LARGEST})
    ],
    "alpha": Annotated[float, AfterValidator(_alpha), WithJsonSchema(_over_0(MOST_ALPHA))],
    "moment": Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string"})],
    "duration": Duration,
    "count": Annotated[int, Field(ge=1)],
    "address": spelled(spellings.address, keep=True),
    "network": spelled(spellings.network, keep=True),
    "origin": spelled(spellings.origin),
    "store": spelled(_store),
    "backend_url": spelled(spellings.backend_url),
    "sink_url": spelled(spellings.sink_url),
    "path": spelled(spellings.absolute_path),
    "route_path": spelled(spellings.route_path),
    "prefix": spelled(spellings.prefix),
    "method": spelled(spellings.method, spellings.METHOD),
    "pointer": spelled(Pointer, "(/.*)?", keep=True),
    "reference": _Reference,
    "features": _Features,
    "slot": Annotated[VersionSlot, BeforeValidator(slot), WithJsonSchema(SLOT_SCHEMA)],
    "header_name": spelled(_token),
    "trusted_users": Annotated[
        mapping(spelled(_user), Literal["read", "operate", "admin"]), AfterValidator(lambda given: tuple(given.items()))
    ],
    "labels": Annotated[mapping(Text, Text), AfterValidator(lambda given: tuple(given.items()))],
    "matched_headers": _headers(_token, _header_value),
    "request_headers": _headers(_request_header, _sent_value),
    "sink_headers": _headers(_event_header, _sent_value),
    "secret": spelled(_secret),
    "table": dict[str, Any],
    "tables": tuple[Any, ...],
}

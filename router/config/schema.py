"""JSON Schema of the operator's file, with which editors complete keys and underline mistakes.

Rule: generated from the tables that read the file, so the two always agree. It covers single settings; only
``turnout check`` checks several together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import policies
from router.config.file import (
    ALERT,
    BACKEND,
    CAPTURE,
    FILE,
    GATEWAY,
    GUARDRAIL,
    MIRROR,
    ROUTE,
    SINK,
    TEST,
    TRIGGER,
    condition_table,
    metric_table,
    policy_table,
)
from router.config.spellings import NAME
from router.config.tables import Setting, Table, nested
from router.triggers import conditions as registry


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) as plain JSON values, with every policy of ``POLICIES``.

    Name it in the first line of a config: ``#:schema ./turnout.schema.json``.
    """
    root = _table(FILE)
    root["properties"] |= {
        "gateway": {"$ref": "#/$defs/gateway"},
        "backends": _named("backend", FILE.settings["backends"]),
        "metrics": _named("metric", FILE.settings["metrics"]),
        "routes": {**_named("route", FILE.settings["routes"]), "minProperties": 1},
        "sinks": _named("sink", FILE.settings["sinks"]),
        "triggers": _named("trigger", FILE.settings["triggers"]),
        "alerts": _named("alert", FILE.settings["alerts"]),
    }
    backend = _table(BACKEND)
    backend["oneOf"] = [{"required": ["url"]}, {"required": ["urls"]}]
    route = _table(ROUTE)
    for name, what in (("mirrors", "mirror"), ("guardrails", "guardrail")):
        route["properties"][name]["items"] = {"$ref": f"#/$defs/{what}"}
    for name in ("capture", "test", "policy"):
        route["properties"][name] = {**_setting(ROUTE.settings[name]), "$ref": f"#/$defs/{name}"}
    guardrail = _table(GUARDRAIL)
    guardrail["oneOf"] = [{"required": ["worse_by"]}, {"required": ["limit"]}]
    trigger = _table(TRIGGER)
    trigger["oneOf"] = [{"required": ["any"]}, {"required": ["all"]}]
    for name in ("any", "all"):
        trigger["properties"][name]["items"] = {"$ref": "#/$defs/condition"}
    conditions = {one.kind: _table(condition_table(one)) for one in registry.CONDITIONS}
    kinds = {policy.kind: _table(policy_table(policy)) for policy in policies.POLICIES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Turnout",
        **root,
        "required": ["routes"],
        "$defs": {
            "gateway": _table(GATEWAY),
            "backend": backend,
            "metric": _table(metric_table()),
            "mirror": _table(MIRROR),
            "guardrail": guardrail,
            "capture": _table(CAPTURE),
            "test": _table(TEST),
            "route": route,
            "sink": _table(SINK),
            "trigger": trigger,
            "alert": _table(ALERT),
            "condition": {"oneOf": [{"$ref": f"#/$defs/condition_{kind}"} for kind in conditions]},
            **{f"condition_{kind}": table for kind, table in conditions.items()},
            "policy": {"oneOf": [{"$ref": f"#/$defs/policy_{kind}"} for kind in kinds]},
            **{f"policy_{kind}": table for kind, table in kinds.items()},
        },
    }


def _named(what: str, setting: Setting) -> dict[str, Any]:
    return {
        "type": "object",
        "description": setting.description,
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": {"$ref": f"#/$defs/{what}"},
    }


def _table(table: Table) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "description": table.description,
        "properties": {name: _setting(setting) for name, setting in table.settings.items()},
        "additionalProperties": False,
    }
    required = [name for name, setting in table.settings.items() if setting.required]
    return {**schema, "required": required} if required else schema


def _setting(setting: Setting) -> dict[str, Any]:
    schema = setting.adapter.json_schema()
    # In TOML an absent setting is left out; there is no null.
    present = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    if len(present) == 1:
        schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **present[0]}
    if setting.made is not None:
        schema = _nested(schema, _table(nested(setting.made)))
    if setting.description:
        schema["description"] = setting.description
    if not setting.required and setting.default not in (None, (), {}):
        schema["default"] = _plain(setting.default)
    if setting.written is not None:
        schema["default"] = setting.written
    return schema


def _nested(schema: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting with the table that it is, or that it is a list of, or that it may be."""
    if schema.get("type") == "array":
        return {**schema, "items": table}
    if "oneOf" in schema:
        return {"oneOf": [table if one.get("type") == "object" else one for one in schema["oneOf"]]}
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value

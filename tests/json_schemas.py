"""Values beside JSON Schema, as much of it as the server's OpenAPI file uses."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
KNOWN = {"type", "properties", "required", "items", "anyOf", "const"}


def misfit(schema: dict[str, Any], value: Any, place: str = "") -> str | None:
    """Where and why a value does not fit, if so."""
    assert set(schema) <= KNOWN, f"a test would pass over {set(schema) - KNOWN}"
    found = [misfit(some, value, place) for some in schema.get("anyOf", ())]
    if found and all(found):
        return " and ".join(map(str, found))
    if "const" in schema and value != schema["const"]:
        return f"{place}: {value!r} is not {schema['const']!r}"
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, KINDS[kind]) or (kind != "boolean" and isinstance(value, bool))):
        return f"{place}: {type(value).__name__} is no {kind}"
    inside: list[str | None] = []
    if isinstance(value, dict):
        inside += [f"{place}: no {key}" for key in schema.get("required", ()) if key not in value]
        known = schema.get("properties", {})
        inside += [misfit(known[key], entry, f"{place}.{key}") for key, entry in value.items() if key in known]
    elif isinstance(value, list) and "items" in schema:
        inside += [misfit(schema["items"], entry, f"{place}[{k}]") for k, entry in enumerate(value)]
    return next(filter(None, inside), None)

"""Writes what is derived from `safeladder.config`: recipes/schema.json, the table of keys in docs/recipes.md.

Run by `make reference`; a test fails while either is out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safeladder.config import recipe_schema

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "recipes" / "schema.json"
DOC = ROOT / "docs" / "recipes.md"
MARKS = ("<!-- keys: made by `make reference` -->", "<!-- end of keys -->")


def schema_text() -> str:
    """JSON schema for editors (`# yaml-language-server: $schema=schema.json`)."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def table() -> str:
    """Markdown tables, one a section of the recipe, of every key with its type, default and meaning."""
    schema = recipe_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    return "\n".join("\n".join(_section(name, body)) for name, body in sections.items())


def doc_text(text: str) -> str:
    """`text` of docs/recipes.md with the tables between the marks replaced."""
    before, rest = text.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


def _section(name: str, body: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name)}\n\n{body.get('description', '')}\n"
    yield "| key | allowed | default | meaning |\n|---|---|---|---|"
    for key, field in body["properties"].items():
        default = "required" if key in body.get("required", ()) else _default(field)
        meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_allowed(field)} | {default} | {meaning} |"


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    if isinstance(default, dict) and default:
        return "its defaults"
    return "" if default is None else f"`{json.dumps(default)}`"


def _allowed(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{x}`" for x in field["enum"])
    if "$ref" in field:
        return f"section *{field['$ref'].rsplit('/', 1)[1]}*"
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_allowed(x) for x in field[union])
    kind = field.get("type", "anything")
    if kind == "object":
        values = field.get("additionalProperties")
        if not values and "patternProperties" in field:
            values = next(iter(field["patternProperties"].values()))
        return "name → " + (_allowed(values) if isinstance(values, dict) else "anything")
    if kind == "array":
        items = field.get("items") or field["prefixItems"][0]
        return f"list of {_allowed(items)}"
    limits = {"exclusiveMinimum": "> ", "minimum": "≥ ", "exclusiveMaximum": "< ", "maximum": "≤ "}
    bounds = [f"{sign}{field[word]:g}" for word, sign in limits.items() if word in field]
    return " ".join([kind, *bounds])


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    DOC.write_text(doc_text(DOC.read_text(encoding="utf-8")), encoding="utf-8")

"""Write the settings reference from the settings' own types; `--check` fails when it is stale."""

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.section import Section
from serve_app.settings import Settings, UserConfig

TARGET = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Made by `make docs` from `serve_app/settings.py`. An unknown key, or a value out of range, is
refused with the key, the value and what is allowed.

- `args` stand under the application in a Serve config. Changing them restarts its replicas.
- `user_config` stands under the deployment `ModelServer`. Changing it takes effect while it runs.
"""


def reference(prefix: str, defaults: BaseModel) -> list[str]:
    """One table row for each setting; ``defaults`` is an instance, so that nested ones show."""
    lines = []
    for name, field in type(defaults).model_fields.items():
        path = f"{prefix}.{name}"
        value = getattr(defaults, name)
        if isinstance(value, Section):
            lines += reference(path, value)
            continue
        default = "unset" if value is None else f"`{value}`"
        lines.append(f"| `{path}` | {kind(field)} | {default} | {field.description} |")
    return lines


def kind(field: FieldInfo) -> str:
    schema = _schema(field)
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    return " ".join([schema.get("type", "choice"), *bounds]).replace("|", "\\|")


def _schema(field: FieldInfo) -> dict[str, Any]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    options = [s for s in schema.get("anyOf", []) if s.get("type") != "null"]
    if options:
        schema = {**options[0], "type": f"{options[0].get('type', 'choice')} or null"}
    if "enum" in schema:
        schema = {**schema, "type": " or ".join(f"`{value}`" for value in schema["enum"])}
    return schema


def render() -> str:
    lines = [HEAD]
    for title, defaults in (("args", Settings()), ("user_config", UserConfig())):
        lines += [f"## `{title}`", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [line.replace(f"`{title}.", "`") for line in reference(title, defaults)]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    text = render()
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"{TARGET} is stale: run `make docs`", file=sys.stderr)  # noqa: T201
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

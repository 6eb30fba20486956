"""Write the table of the fields of requests into docs/serve.md from the one that the server works with.

python scripts/write_fields.py
"""

from __future__ import annotations

from pathlib import Path

from ownlm.server.fields import ROUTES, Field

START, END = "<!-- fields: written by scripts/write_fields.py -->", "<!-- end of fields -->"
PAGE = Path(__file__).parent.parent / "docs" / "serve.md"


def fields_tables() -> str:
    """A section for each route: what is honoured, what has no effect, what is refused and why."""
    parts = []
    for route, fields in ROUTES.items():
        rows = [
            f"### POST {route}",
            "",
            "| field | treatment | value | default | meaning |",
            "|---|---|---|---|---|",
        ]
        rows += [_row(field) for field in fields]
        parts.append("\n".join(rows))
    return f"{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}"


def _row(field: Field) -> str:
    expects, default = field.expects, "" if field.default in (None, ()) else f"`{_json(field.default)}`"
    if field.default is ...:
        default = "required"
    if field.treatment == "refused":
        neutral = [f"`{_json(value)}`" for value in field.neutral]
        expects = f"left out{''.join(f', {value}' for value in neutral)}"
    cells = (f"`{field.name}`", field.treatment, expects, default, field.note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _json(value: object) -> str:
    import json

    return "" if value is ... else json.dumps(value)


def main() -> None:
    """Rewrite the tables of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    PAGE.write_text(before + fields_tables() + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

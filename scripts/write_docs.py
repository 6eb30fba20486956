"""Write the options table of every verb's page from its signature and docstring; `--check` only compares.

python scripts/write_docs.py [--check]
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from ownlm.console.command import docstring_parts, option_name
from ownlm.verbs import VERBS, load_verb

START, END = "<!-- options: written by scripts/write_docs.py -->", "<!-- end of options -->"


def options_table(name: str) -> str:
    """The verb's description and a Markdown table of its arguments and options."""
    verb = load_verb(name)
    function = getattr(verb, "__ownlm_function__", verb)
    description, helps = docstring_parts(function)
    rows = ["| argument or option | default | meaning |", "|---|---|---|"]
    for parameter in inspect.signature(function).parameters.values():
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        shown = parameter.name.strip("_").upper() if positional else option_name(parameter.name)
        default = parameter.default
        empty = default in (None, "", inspect.Parameter.empty, False) or default == []
        cell = "" if empty else f"`{default}`"
        meaning = helps.get(parameter.name, "").replace("|", "\\|")
        rows.append(f"| `{shown}` | {cell} | {meaning} |")
    return f"{START}\n\n{description}\n\n" + "\n".join(rows) + f"\n\n{END}"


def main() -> int:
    """Rewrite (or check) every page; the exit code is 1 when a page was out of date and `--check` was given."""
    stale = []
    for name in VERBS:
        page = Path(__file__).parent.parent / "docs" / f"{name}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else f"# ownlm {name}\n\n{START}\n{END}\n"
        before, rest = text.split(START)
        after = rest.split(END)[1]
        fresh = before + options_table(name) + after
        if fresh != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(fresh, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print("out of date: " + ", ".join(stale) + "\nTry: python scripts/write_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

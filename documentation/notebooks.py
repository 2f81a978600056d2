"""Tutorials: notebooks as pages, with the outputs that they were stored with."""

import json
import re
from pathlib import Path
from typing import Any

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def page(notebook: Path) -> str:
    """Return a notebook as Markdown: its texts, its commands, and what they printed."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return "\n\n".join(_cell(each) for each in cells) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return text
    language, _, rest = text.partition("\n")
    block = f"```sh\n{rest}\n```" if language == "%%bash" else f"```python\n{text}\n```"
    printed = "".join("".join(each.get("text", "")) for each in cell.get("outputs", []))
    shown = _COLOUR.sub("", printed).strip("\n")
    return f"{block}\n\n```text\n{shown}\n```" if shown else block

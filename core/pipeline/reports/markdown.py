"""Escaping of users' text in Markdown."""

import re

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """Return text on one line so that Markdown and HTML show it unchanged."""
    return " ".join(text.split()).translate(_ESCAPES)


def fenced(text: str) -> list[str]:
    """Return the lines of a code block that shows the text verbatim; its fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]

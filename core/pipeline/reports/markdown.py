"""Escaping of users' text in Markdown."""

import re

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    return " ".join(text.split()).translate(_ESCAPES)


def fenced(text: str) -> list[str]:
    """Return the lines of a code block that shows the text verbatim, with a fence longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]

"""Text of others, in Markdown."""

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    return " ".join(text.split()).translate(_ESCAPES)

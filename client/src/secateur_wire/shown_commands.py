"""Values in commands that people copy: quoted, so that none of them can be read as a command or as code."""

import json
import shlex


def shell(*words: object) -> str:
    """Return words as a part of a shell's command line."""
    return shlex.join(map(str, words))


def python_text(text: str) -> str:
    """Return a text as a literal of Python, in one line."""
    return json.dumps(text, ensure_ascii=False)

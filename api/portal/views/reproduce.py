"""Commands that submit the same job: with curl, the command line, and Python."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from secateur_wire.shown_commands import shell

_WIDTH: Final = 100
_CONTINUED: Final = " \\\n  "


@dataclass(frozen=True)
class Commands:
    """Three ways to submit the same body."""

    curl: str
    cli: str
    python: str


def commands_for(body: Mapping[str, Any], url: str) -> Commands:
    """Return the commands that submit a minimal `body` to the service at `url`."""
    return Commands(curl=_curl(body, url), cli=_cli(body), python=_python(body, url))


def _curl(body: Mapping[str, Any], url: str) -> str:
    parts = [
        f"curl -sS {shell(f'{url}/v1/jobs')}",
        '-H "Authorization: Bearer $SECATEUR_API_KEY"',
        "-H 'Content-Type: application/json'",
        f"-d {shell(_json(body))}",
    ]
    return _CONTINUED.join(parts)


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False)


def _python(body: Mapping[str, Any], url: str) -> str:
    arguments = "".join(f"        {name}={_literal(value, 8)},\n" for name, value in body.items())
    return (
        "from secateur import Client\n\n"
        f"with Client({url!r}) as client:  # the key is read from SECATEUR_API_KEY\n"
        f"    job = client.submit(\n{arguments}    )\n"
        "    print(client.wait(job.id).status)"
    )


def _literal(value: Any, indent: int) -> str:
    """Format a value as a Python literal, over several lines if one would be too long."""
    plain = repr(value)
    if indent + len(plain) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return plain
    inner = indent + 4
    items = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    lines = [" " * inner + ("" if name is None else f"{name!r}: ") + _literal(each, inner) for name, each in items]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + "".join(f"{line},\n" for line in lines) + " " * indent + closing


def _cli(body: Mapping[str, Any]) -> str:
    return f"secateur submit --body - <<'BODY'\n{_json(body)}\nBODY"

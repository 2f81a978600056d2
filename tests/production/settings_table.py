"""The table of settings in docs/operations.md: `python -m tests.production.settings_table` writes it anew."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bench.page import write_section
from core.settings import Settings
from tests.production.files import ROOT

PAGE = ROOT / "docs" / "operations.md"
_SIZES = ((2**30, "GiB"), (2**20, "MiB"))


def settings_table() -> str:
    rows = [f"| `SECATEUR_{name.upper()}` | {_default(field)} | {field.description} |" for name, field in _fields()]
    return "\n".join(["| variable | default | what |", "|:--|:--|:--|", *rows])


def _fields() -> list[tuple[str, FieldInfo]]:
    return list(Settings.model_fields.items())


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        return f"`{','.join(f'{each:g}' if isinstance(each, float) else str(each) for each in value)}`"
    assert not isinstance(value, SecretStr), "a secret has no default"
    if isinstance(value, int) and value >= 2**20:
        for size, unit in _SIZES:
            if value % size == 0:
                return f"`{value}` ({value // size} {unit})"
        return f"`{value}` ({value / 1e9:g} GB)"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{Path(value) if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    write_section(PAGE, "settings", settings_table())

"""Text that the judge is measured on: source code of Python's standard library."""

import json
import sysconfig
from pathlib import Path
from typing import Final

from bench.cells import CACHE
from bench.service import add_documentation
from worker.embedded.instance import EmbeddedInstance
from worker.embedded.register import add_dataset

CODE: Final = "python-code"
_MODULES: Final = ("ast", "configparser", "doctest", "ipaddress", "pdb", "statistics", "textwrap", "zipfile")


def add_texts(home: EmbeddedInstance) -> None:
    """Write and register what is missing: source code, and this project's documentation."""
    add_documentation(home)
    file = CACHE / f"{CODE}.jsonl"
    if not file.exists():
        modules = [Path(sysconfig.get_path("stdlib"), f"{name}.py").read_text("utf-8") for name in _MODULES]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in modules), "utf-8")
    add_dataset(home, CODE, file, source="bench")

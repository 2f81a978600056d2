"""Texts of the judge: articles and source code that it is trained on, and others that nothing is trained on."""

import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bench.cells import CACHE
from bench.service import add_documentation
from worker.embedded.instance import EmbeddedInstance
from worker.embedded.register import add_dataset
from worker.samples.language import CALIBRATION

TRAINING, CODE = "judge-training", "python-code"
_JUDGING_MODULES: Final = ("ast", "configparser", "doctest", "ipaddress", "pdb", "statistics", "textwrap", "zipfile")
"""Modules of Python's standard library that are held back."""
_CODE_SHARE: Final = 0.25
"""Characters of code in the training text, as a share of those of the articles."""


def add_texts(home: EmbeddedInstance) -> None:
    """Write and register what is missing: text to train on, source code, and this project's documentation."""
    add_documentation(home)
    articles = [json.loads(line)["text"] for line in (home.settings.datasets_root / f"{CALIBRATION}.jsonl").open()]
    most = int(_CODE_SHARE * sum(map(len, articles)))
    for name, texts in ((TRAINING, [*articles, *_others(most)]), (CODE, _held_back())):
        file = CACHE / f"{name}.jsonl"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        add_dataset(home, name, file, source="bench")


def _held_back() -> Iterable[str]:
    return [path.read_text("utf-8") for path in _modules() if path.stem in _JUDGING_MODULES]


def _others(most: int) -> Iterator[str]:
    """Yield modules that are not held back, with so many characters in total at most."""
    for path in _modules():
        text = path.read_text("utf-8")
        if path.stem in _JUDGING_MODULES or len(text) > most:
            continue
        most -= len(text)
        yield text


def _modules() -> list[Path]:
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))

"""The service on this machine with its sample model and texts, for benches whose cells are jobs of it."""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.cells import CACHE, own_release
from bench.handbook import write_handbook
from bench.machine import describe_machine
from core.settings import Settings
from secateur import Client
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_dataset
from worker.embedded.serving import serving
from worker.samples.language import add_samples

HANDBOOK, DOCUMENTATION, CODE = "debian-handbook", "secateur-documentation", "python-code"
"""Names of the texts that `add_text` registers."""
_MODULES: Final = ("ast", "configparser", "doctest", "ipaddress", "pdb", "statistics", "textwrap", "zipfile")
_DOCS: Final = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Service:
    """A running service: its client, and its home as an administrator has it."""

    client: Client
    home: EmbeddedInstance

    @property
    def settings(self) -> Settings:
        return self.home.settings


@contextmanager
def sample_service() -> Iterator[Service]:
    """Run the service of this user's settings, with the samples in it."""
    settings = Settings()
    with serving(settings, print) as url, open_instance(settings) as home:
        add_samples(home, print)
        with Client(url, (settings.home / "api-key").read_text().strip()) as client:
            yield Service(client, home)


def service_key(*facts: Any) -> str:
    """Return the name of figures that depend on these facts, the releases and the machine."""
    text = json.dumps([*facts, own_release(), describe_machine()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def add_text(home: EmbeddedInstance, name: str) -> None:
    """Register a text where a home lacks it; those of the samples are there.

    It has the handbook, this project's decisions, and source code of Python's standard library. Raises MissingData
    where the handbook cannot be fetched.
    """
    if (home.settings.datasets_root / f"{name}.jsonl").exists():
        return
    file = CACHE / f"{name}.jsonl"
    if name == HANDBOOK:
        write_handbook(file)
    else:
        texts = {
            DOCUMENTATION: lambda: [page.read_text("utf-8") for page in sorted(_DOCS.glob("adr/*.md"))],
            CODE: lambda: [Path(sysconfig.get_path("stdlib"), f"{each}.py").read_text("utf-8") for each in _MODULES],
        }[name]()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    add_dataset(home, name, file, source="bench")

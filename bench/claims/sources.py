"""Where the data sets and the language model of the claims lie on this machine. Loads no torch."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.settings import Settings
from worker.home import open_home
from worker.samples import CALIBRATION, EVALUATION, MODEL, add_samples
from worker.task_samples import add_task_samples

PACKAGE = "dataset-fashion-mnist"
RECALL = "arc_easy"


class MissingData(Exception):
    """A data set is not on this machine, or not what it should be; the message says what to do."""


def fashion_mnist_files() -> dict[str, Path]:
    """The four files of Debian's package, by name; raises MissingData."""
    listed = ""
    if shutil.which("dpkg"):
        answer = subprocess.run(["dpkg", "-L", PACKAGE], capture_output=True, text=True, check=False)
        listed = answer.stdout
    files = {Path(line).name: Path(line) for line in listed.splitlines() if line.endswith("-ubyte.gz")}
    if len(files) != 4 or not all(file.is_file() for file in files.values()):
        raise MissingData(f"Fashion-MNIST is not on this machine: apt-get install {PACKAGE}")
    return files


@dataclass(frozen=True)
class LanguageFiles:
    """The sample language model, its calibration and evaluation texts, and the questions of the recall task."""

    model: Path
    calibration: Path
    evaluation: Path
    questions: Path

    @classmethod
    def of(cls, settings: Settings) -> "LanguageFiles":
        """Where they lie in a home, there or not."""
        texts = (settings.datasets_root / f"{name}.jsonl" for name in (CALIBRATION, EVALUATION))
        return cls(settings.models_root / MODEL, *texts, settings.local_tasks / RECALL / "validation.jsonl")

    def are_there(self) -> bool:
        """All of them."""
        return all(path.exists() for path in (self.model, self.calibration, self.evaluation, self.questions))


def fetch_language_files(say: Callable[[str], None]) -> None:
    """Bring what is not there yet into this service's home."""
    settings = Settings()
    if LanguageFiles.of(settings).are_there():
        return
    with open_home(settings) as home:
        add_samples(home, say)
    add_task_samples(settings, say)

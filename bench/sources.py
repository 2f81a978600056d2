"""Where the data sets and the language model of the claims lie on this machine. Loads no torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.settings import Settings
from worker.embedded.instance import open_instance
from worker.samples.images import FASHION_MNIST_FILES, FASHION_MNIST_LIST, FASHION_MNIST_PACKAGE
from worker.samples.language import CALIBRATION, EVALUATION, MODEL, add_samples
from worker.samples.zero_shot import add_task_samples

FOLDER_VARIABLE = "FASHION_MNIST"
RECALL = "arc_easy"
JUDGE = "smollm2-rotated"
"""Name in a home of the sample in rotated axes, whose weights lie on no grid of few bits."""


class MissingData(Exception):
    """A data set is not on this machine; the message says what to do."""


def fashion_mnist_files() -> dict[str, Path]:
    """The four files of Debian's package by name, of the folder that FASHION_MNIST names, else of the package where it
    is installed; raises MissingData.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        found = {file.name: file for file in Path(folder).glob("*-ubyte.gz")}
    else:
        listed = FASHION_MNIST_LIST.read_text().splitlines() if FASHION_MNIST_LIST.is_file() else []
        found = {Path(line).name: Path(line) for line in listed}
    names = [name for pair in FASHION_MNIST_FILES.values() for name in pair]
    missing = [name for name in names if name not in found or not found[name].is_file()]
    if missing:
        raise MissingData(
            f"Fashion-MNIST is not on this machine ({', '.join(missing)}): `apt-get install {FASHION_MNIST_PACKAGE}`, "
            f"or name a folder that holds its four files in {FOLDER_VARIABLE}"
        )
    return {name: found[name] for name in names}


def judge_folder() -> Path:
    """Return the folder of the judge in this service's home; raises MissingData."""
    folder = Settings().models_root / JUDGE
    if not folder.exists():
        raise MissingData(f"the home has no model {JUDGE}: `python -m bench.study judge` makes it")
    return folder


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
        calibration, evaluation = (settings.datasets_root / f"{name}.jsonl" for name in (CALIBRATION, EVALUATION))
        questions = settings.local_tasks / RECALL / "validation.jsonl"
        return cls(settings.models_root / MODEL, calibration, evaluation, questions)

    def are_there(self) -> bool:
        """All of them."""
        return all(path.exists() for path in (self.model, self.calibration, self.evaluation, self.questions))


def fetch_language_files(say: Callable[[str], None]) -> None:
    """Bring what is not there yet into this service's home."""
    settings = Settings()
    if LanguageFiles.of(settings).are_there():
        return
    with open_instance(settings) as home:
        add_samples(home, say)
    add_task_samples(settings, say)

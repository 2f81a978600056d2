"""The stage that compares answers: its figures, what it leaves out, and what is left of it after a kill."""

from pathlib import Path
from typing import Any

import pytest

from core.engine.datasets.chat.conversations import RenderedRow, Rendering
from core.pipeline.messages import ModelSource, TextSource
from core.pipeline.stages.evaluation_spec import AnswersOutput, AnswersSpec
from core.pipeline.stages.run import run_stage
from core.progress import Progress
from tests.engine.evaluation.answers.test_comparison import FRAME, LIVELY
from tests.engine.watching import Watching
from tests.sources.conftest import write_wordy_model

ASKED = 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    dense, pruned = (write_wordy_model(folder / f"{seed}", seed=seed, **LIVELY) for seed in (3, 1))
    return dense, pruned


def questions(file: Path) -> TextSource:
    rows = [
        RenderedRow(line=number, text=f"w4 w{number + 9} w{number + 12} w2 w5 ", reference="w9")
        for number in range(1, ASKED + 1)
    ]
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    rendering = Rendering(template="t", conversations=len(rows), characters=1)
    return TextSource(name="asked", path=file, format="jsonl", sha256="s", rendering=rendering)


def run(
    models: tuple[Path, Path], work: Path, *asked: TextSource, progress: Progress | None = None, **more: Any
) -> AnswersOutput:
    dense, pruned = (ModelSource(path=each, name=each.name, revision=each.name) for each in models)
    told: dict[str, Any] = {
        "device": "cpu", "threads": 1, "dense": dense, "pruned": pruned, "question_sets": list(asked), "frame": FRAME,
        "samples": None, "max_new_tokens": 8, "check": "contains", "work": work,
    }  # fmt: skip
    output = run_stage(AnswersSpec.model_validate(told | more), progress or Progress(), lambda: 0)
    assert isinstance(output, AnswersOutput)
    return output


def test_after_a_kill_it_goes_on_after_the_last_batch_to_the_same_bytes(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    class Killed(Progress):
        """Progress of a process that ends in its third batch."""

        said = 0

        def log(self, message: str) -> None:
            self.said += 1
            if self.said == 3:
                raise KeyboardInterrupt

    asked = questions(tmp_path / "q.jsonl")
    whole = run(models, tmp_path / "whole", asked)
    with pytest.raises(KeyboardInterrupt):
        run(models, tmp_path / "killed", asked, progress=Killed())
    resumed = Watching()
    output = run(models, tmp_path / "resumed", asked, progress=resumed, previous=[tmp_path / "killed"])
    assert resumed.logs[0] == "continuing after 3 of 4 batches of answers"
    assert output.model_dump_json(exclude={"peak_memory"}) == whole.model_dump_json(exclude={"peak_memory"})

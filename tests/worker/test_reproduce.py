"""An artifact is pruned again: the recipe with the data that is given, and errors where that is not what it names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.pipeline.reports.manifest import Manifest
from core.service.jobs.schemas import JobBody
from core.service.sources.folders import content_hash, dataset_hash
from core.settings import Settings
from tests.model_folders import write_llama, write_text
from tests.recipes import recipe_of
from worker.cli.reproduce import recipe_with, reproduce, reproduce_block
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.failures import CommandFailed


@pytest.fixture
def instance(settings: Settings) -> Iterator[EmbeddedInstance]:
    with open_instance(settings) as opened:
        yield opened


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "dense")


def _manifest(revision: str, digest: str) -> Manifest:
    body = recipe_of("wanda").body() | {
        "sparsity": 0.5,
        "model": "elm",
        "calibration": {"dataset": "words", "samples": 4},
        "recovery": {"method": "lora", "dataset": "words"},
        "evaluation": {"datasets": ["words", "others"], "tasks": ["boolq"], "prompts": ["Once"], "samples": 4},
        "output": {"exports": [{"format": "gguf", "types": ["Q8_0"]}]},
        "gates": {"max_perplexity_ratio": 1.2},
        "metadata": {"commit": "abc"},
    }
    report = {
        "model": {"name": "elm", "revision": revision},
        "texts": {
            "calibration": {"name": "words", "sha256": digest},
            "evaluation": {"others": {"name": "others", "sha256": "f" * 64}},
        },
        "layers": [{"name": f"model.layers.{layer}.mlp.up_proj", "layer": layer} for layer in (0, 1)],
    }
    return Manifest.model_validate({"recipe": body, "report": report, "files": {}})


def test_the_recipe_gets_the_names_of_what_is_given_and_loses_what_changes_no_weight(
    instance: EmbeddedInstance, dense: Path, tmp_path: Path
) -> None:
    text = write_text(tmp_path / "other-name.txt")
    manifest = _manifest(content_hash(dense), dataset_hash(text))
    body = recipe_with(manifest, instance, dense, [text])
    name = f"text-{dataset_hash(text)[:12]}"
    job = JobBody.model_validate(body)
    assert job.calibration is not None and (job.calibration.dataset, job.calibration.samples) == (name, 4)
    assert job.recovery is not None and job.recovery.dataset == name
    assert (job.evaluation.datasets, job.evaluation.tasks, job.evaluation.prompts) == ([name], [], [])
    assert not job.output.exports and job.model.startswith("source-") and job.sparsity == 0.5
    assert not body.keys() & {"queue", "gates", "metadata"}
    assert recipe_with(manifest, instance, dense, [text]) == body, "a second time"
    alone = JobBody.model_validate(recipe_with(manifest, instance, dense, [text], is_measured=False))
    assert (alone.evaluation.datasets, alone.recovery, alone.calibration) == ([], None, job.calibration)


def test_what_is_not_what_the_recipe_names_is_told(instance: EmbeddedInstance, dense: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "words.txt")
    manifest = _manifest(content_hash(dense), dataset_hash(text))
    with pytest.raises(CommandFailed, match=r"needs data that --text does not give: words \(SHA-256 "):
        recipe_with(manifest, instance, dense, [])
    other = tmp_path / "other.txt"
    other.write_text("nothing of the kind " * 200)
    with pytest.raises(CommandFailed, match=r"other\.txt is none of the data sets of the recipe: words \(SHA-256 "):
        recipe_with(manifest, instance, dense, [text, other])
    with pytest.raises(CommandFailed, match="is another model than was pruned"):
        recipe_with(_manifest("sha256:" + "0" * 64, dataset_hash(text)), instance, dense, [text])
    with pytest.raises(CommandFailed, match=r"is no artifact of a job: secateur\.json"):
        reproduce(instance.settings, dense, dense, [text])
    (dense / "secateur.json").write_text(_manifest(content_hash(dense), dataset_hash(text)).model_dump_json())
    with pytest.raises(CommandFailed, match="--block 7: the recipe prunes nothing there; its blocks are 0 to 1"):
        reproduce_block(instance.settings, dense, dense, [text], 7)
    (dense / "secateur.json").write_text(json.dumps({"recipe": {}, "report": {}, "files": {}}))
    with pytest.raises(CommandFailed, match="does not say which model"):
        reproduce(instance.settings, dense, dense, [text])

"""Models and texts are taken into a home from its own command line; an artifact is pruned again there, from its recipe
with the data that is given.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.database import transaction
from core.pipeline.reports.manifest import Manifest
from core.service.jobs.schemas import JobBody
from core.service.registry.tables import DatasetRow, ModelRow
from core.service.sources.folders import content_hash, dataset_hash
from core.settings import Settings
from secateur_wire.errors import Conflict, UnusableDataset
from tests.image_sets import grays, write_folder
from tests.model_folders import write_llama, write_text
from tests.recipes import recipe_of
from worker.cli.reproduce import recipe_with, reproduce, reproduce_block
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_dataset, add_model
from worker.failures import CommandFailed


@pytest.fixture
def home(settings: Settings) -> Iterator[EmbeddedInstance]:
    with open_instance(settings) as opened:
        yield opened


def quiet(text: str) -> None:
    pass


def test_a_model_folder_is_taken_in_by_links_and_known_afterwards(home: EmbeddedInstance, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "given")
    model = add_model(home, "small", folder, say=quiet)
    taken_in = home.settings.models_root / "small"
    assert model.name == "small" and model.parameters > 0
    assert (taken_in / "model.safetensors").samefile(folder / "model.safetensors")
    assert add_model(home, "small", folder, say=quiet).id == model.id
    assert [path.name for path in home.settings.models_root.iterdir()] == ["small"]


def test_a_text_is_taken_in_and_a_name_means_one_text(home: EmbeddedInstance, tmp_path: Path) -> None:
    file = write_text(tmp_path / "given.txt")
    dataset = add_dataset(home, "numbers", file)
    assert dataset.format == "text" and (home.settings.datasets_root / "numbers.txt").exists()
    assert add_dataset(home, "numbers", file).id == dataset.id
    with pytest.raises(Conflict):
        add_dataset(home, "numbers", write_text(tmp_path / "other.txt", words=50))
    with pytest.raises(UnusableDataset):
        add_dataset(home, "missing", tmp_path / "missing.txt")


@pytest.mark.parametrize("is_the_operators", [False, True])
def test_by_the_command_too_what_lies_where_the_server_registers_from_stays_there(
    home: EmbeddedInstance, is_the_operators: bool, tmp_path: Path
) -> None:
    home.settings.allowed_roots = [tmp_path / "operator"]
    place = home.settings.allowed_roots[0] if is_the_operators else home.settings.models_root
    folder, text = write_llama(place / "given"), write_text(place / "words.txt")
    images = write_folder(place / "images", grays(4), ["a", "b"])
    before = sorted(home.settings.home.rglob("*"))
    model = add_model(home, "small", folder, say=quiet)
    texts = [add_dataset(home, "words", text), add_dataset(home, "shades", images)]
    assert sorted(home.settings.home.rglob("*")) == before, "nothing was linked or copied"
    with transaction(home.sessions) as session:
        rows = [session.get_one(ModelRow, model.id), *(session.get_one(DatasetRow, each.id) for each in texts)]
    assert [row.path for row in rows] == [str(each.resolve()) for each in (folder, text, images)]
    with pytest.raises(UnusableDataset):
        add_dataset(home, "broken", write_text(place / "broken.parquet"))
    assert (place / "broken.parquet").is_file(), "it is the user's file"


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
    home: EmbeddedInstance, dense: Path, tmp_path: Path
) -> None:
    text = write_text(tmp_path / "other-name.txt")
    manifest = _manifest(content_hash(dense), dataset_hash(text))
    body = recipe_with(manifest, home, dense, [text])
    name = f"text-{dataset_hash(text)[:12]}"
    job = JobBody.model_validate(body)
    assert job.calibration is not None and (job.calibration.dataset, job.calibration.samples) == (name, 4)
    assert job.recovery is not None and job.recovery.dataset == name
    assert (job.evaluation.datasets, job.evaluation.tasks, job.evaluation.prompts) == ([name], [], [])
    assert not job.output.exports and job.model.startswith("source-") and job.sparsity == 0.5
    assert not body.keys() & {"queue", "gates", "metadata"}
    assert recipe_with(manifest, home, dense, [text]) == body, "a second time"
    alone = JobBody.model_validate(recipe_with(manifest, home, dense, [text], is_measured=False))
    assert (alone.evaluation.datasets, alone.recovery, alone.calibration) == ([], None, job.calibration)


def test_what_is_not_what_the_recipe_names_is_told(home: EmbeddedInstance, dense: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "words.txt")
    manifest = _manifest(content_hash(dense), dataset_hash(text))
    with pytest.raises(CommandFailed, match=r"needs data that --text does not give: words \(SHA-256 "):
        recipe_with(manifest, home, dense, [])
    other = tmp_path / "other.txt"
    other.write_text("nothing of the kind " * 200)
    with pytest.raises(CommandFailed, match=r"other\.txt is none of the data sets of the recipe: words \(SHA-256 "):
        recipe_with(manifest, home, dense, [text, other])
    with pytest.raises(CommandFailed, match="is another model than was pruned"):
        recipe_with(_manifest("sha256:" + "0" * 64, dataset_hash(text)), home, dense, [text])
    with pytest.raises(CommandFailed, match=r"is no artifact of a job: secateur\.json"):
        reproduce(home.settings, dense, dense, [text])
    (dense / "secateur.json").write_text(_manifest(content_hash(dense), dataset_hash(text)).model_dump_json())
    with pytest.raises(CommandFailed, match="--block 7: the recipe prunes nothing there; its blocks are 0 to 1"):
        reproduce_block(home.settings, dense, dense, [text], 7)
    (dense / "secateur.json").write_text(json.dumps({"recipe": {}, "report": {}, "files": {}}))
    with pytest.raises(CommandFailed, match="does not say which model"):
        reproduce(home.settings, dense, dense, [text])

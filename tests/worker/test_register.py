"""Taking models and texts into a home from its own command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.database import transaction
from core.service.registry.tables import DatasetRow, ModelRow
from core.settings import Settings
from secateur_wire.errors import Conflict, UnusableDataset
from tests.image_sets import grays, write_folder
from tests.model_folders import write_llama, write_text
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_dataset, add_model


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

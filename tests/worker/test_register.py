"""Taking models and texts into a home from its own command line."""

import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.database import transaction
from core.service.registry.tables import DatasetRow, ModelRow
from core.settings import Settings
from secateur.cli import datasets_app, keys_app, models_app
from secateur_wire.errors import Conflict, UnusableDataset, UnusableModel
from tests.image_sets import grays, write_folder
from tests.model_folders import write_llama, write_text
from worker.cli import register
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_dataset, add_model
from worker.samples.images import add_image_samples


@pytest.fixture
def home(settings: Settings) -> Iterator[EmbeddedInstance]:
    with open_instance(settings) as opened:
        yield opened


def quiet(text: str) -> None:
    pass


def test_a_home_is_opened_with_a_key_only_its_owner_reads(home: EmbeddedInstance) -> None:
    key = home.settings.home / "api-key"
    assert key.read_text().startswith("sct_") and key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    with open_instance(home.settings):
        assert key.read_text() == before


def test_a_model_folder_is_taken_in_by_links_and_known_afterwards(home: EmbeddedInstance, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "given")
    model = add_model(home, "small", folder, say=quiet)
    taken_in = home.settings.models_root / "small"
    assert model.name == "small" and model.parameters > 0
    assert (taken_in / "model.safetensors").samefile(folder / "model.safetensors")
    assert add_model(home, "small", folder, say=quiet).id == model.id
    assert [path.name for path in home.settings.models_root.iterdir()] == ["small"]


def test_a_name_means_one_model(home: EmbeddedInstance, tmp_path: Path) -> None:
    add_model(home, "small", write_llama(tmp_path / "given"), say=quiet)
    with pytest.raises(Conflict):
        add_model(home, "small", write_llama(tmp_path / "other", seed=1), say=quiet)


def test_what_is_no_model_is_refused_and_leaves_nothing(home: EmbeddedInstance, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")
    for path in (tmp_path / "empty", tmp_path / "notes.txt"):
        with pytest.raises(UnusableModel):
            add_model(home, "nothing", path, say=quiet)
    assert list(home.settings.models_root.iterdir()) == []


def test_names_of_the_embedded_server_are_refused_by_their_rule_in_words(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_HOME", str(settings.home))
    monkeypatch.setenv("SECATEUR_DATABASE_URL", settings.database_url or "")
    monkeypatch.delenv("SECATEUR_URL", raising=False)
    file, folder = write_text(tmp_path / "f.txt"), write_llama(tmp_path / "folder")
    app = typer.Typer()
    for name, group in (("models", models_app), ("datasets", datasets_app), ("keys", keys_app)):
        app.add_typer(group, name=name)
    register(app)
    for words in (
        ("datasets", "add", "Größe", str(file)),
        ("models", "add", "模型", str(folder)),
        ("models", "new", "../Größe", "--network", "mlp"),
    ):
        result = CliRunner().invoke(app, words)
        assert (result.exit_code, result.stdout) == (2, ""), words
        assert f"Invalid request: name: {words[2]!r} is not valid here: use 1 to 96 lowercase letters" in result.stderr
    assert not list(settings.home.rglob("*Größe*"))


def test_a_text_is_taken_in_and_a_name_means_one_text(home: EmbeddedInstance, tmp_path: Path) -> None:
    file = write_text(tmp_path / "given.txt")
    dataset = add_dataset(home, "numbers", file)
    assert dataset.format == "text" and (home.settings.datasets_root / "numbers.txt").exists()
    assert add_dataset(home, "numbers", file).id == dataset.id
    with pytest.raises(Conflict):
        add_dataset(home, "numbers", write_text(tmp_path / "other.txt", words=50))
    with pytest.raises(UnusableDataset):
        add_dataset(home, "missing", tmp_path / "missing.txt")


def test_the_field_of_jsonl_can_be_named(home: EmbeddedInstance, tmp_path: Path) -> None:
    file = tmp_path / "given.jsonl"
    file.write_text("".join(json.dumps({"body": f"text {number}"}) + "\n" for number in range(3)))
    assert add_dataset(home, "bodies", file, text_field="body").documents == 3


def test_a_folder_of_images_is_taken_in_by_links(home: EmbeddedInstance, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "given", grays(4), ["a", "b"])
    dataset = add_dataset(home, "shades", folder)
    assert (dataset.format, dataset.images, dataset.classes) == ("image_folder", 4, 2)
    taken_in = home.settings.datasets_root / "shades" / "a" / "0000.png"
    assert taken_in.samefile(folder / "a" / "0000.png")
    assert add_dataset(home, "shades", folder).id == dataset.id
    with pytest.raises(Conflict):
        add_dataset(home, "shades", write_folder(tmp_path / "other", grays(5), ["a", "b"]))


def test_what_is_no_image_set_does_not_keep_the_name(home: EmbeddedInstance, tmp_path: Path) -> None:
    broken = write_folder(tmp_path / "broken", [b"no image"], ["a"])
    with pytest.raises(UnusableDataset):
        add_dataset(home, "shades", broken)
    assert add_dataset(home, "shades", write_folder(tmp_path / "right", grays(2), ["a"])).images == 2


def test_sample_images_are_digits_and_fashion_where_it_is_installed(home: EmbeddedInstance, tmp_path: Path) -> None:
    said: list[str] = []
    package = tmp_path / "package.list"
    add_image_samples(home, said.append, package_files=package)
    assert said[:2] == [
        "Dataset digits-train: 1437 images, 10 classes",
        "Dataset digits-test: 360 images, 10 classes",
    ]
    assert "apt-get install dataset-fashion-mnist" in said[2]
    installed = []
    for name, count in (("train", 3), ("t10k", 2)):
        for kind, sizes in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            file = tmp_path / f"{name}-{kind}-ubyte.gz"
            magic = 0x800 + len(sizes)
            content = bytes(range(count)) if len(sizes) == 1 else bytes(count * 784)
            file.write_bytes(gzip.compress(struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + content))
            installed.append(str(file))
    package.write_text("\n".join(["/usr/share", *installed]) + "\n")
    said.clear()
    add_image_samples(home, said.append, package_files=package)
    assert said[2:] == [
        "Dataset fashion-mnist-train: 3 images, 10 classes",
        "Dataset fashion-mnist-test: 2 images, 10 classes",
    ]


@pytest.mark.parametrize("root", ["models_root", "datasets_root", "operator"])
def test_by_the_command_too_what_lies_where_the_server_registers_from_stays_there(
    home: EmbeddedInstance, root: str, tmp_path: Path
) -> None:
    home.settings.allowed_roots = [tmp_path / "operator"]
    place = home.settings.allowed_roots[0] if root == "operator" else getattr(home.settings, root)
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

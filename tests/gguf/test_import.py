"""GGUF files taken into a home: converted in a runner, refused with a reason, converted again where that was wrong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
from gguf import GGUFReader

from core.database import transaction
from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.folder import open_model
from core.service.registry.service import find_row
from core.service.registry.tables import ModelRow
from core.settings import Settings
from secateur_wire.errors import SecateurError, UnusableModel
from tests.gguf.files import train_byte_level, write_llama
from tests.gguf.llama_cpp import llama_cpp_ids
from tests.worker.conftest import eventually
from worker.embedded import register
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_model
from worker.samples import language

LINES = varied_lines(100)


@pytest.fixture
def home(settings: Settings) -> Iterator[EmbeddedInstance]:
    with open_instance(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("gguf") / "small.gguf", "smollm", *train_byte_level(LINES * 5, 600))


def quiet(text: str) -> None:
    pass


def test_an_imported_model_has_the_file_s_weights_and_tokenizer(home: EmbeddedInstance, small_gguf: Path) -> None:
    add_model(home, "small", small_gguf, say=quiet)
    folder = open_model(home.settings.models_root / "small")
    (theirs,) = llama_cpp_ids([small_gguf], LINES)
    assert folder.tokenizer()(LINES)["input_ids"] == theirs
    stored = {tensor.name: tensor.data for tensor in GGUFReader(small_gguf).tensors}
    assert numpy.array_equal(folder.read("model.embed_tokens.weight").numpy(), stored["token_embd.weight"])
    assert numpy.array_equal(folder.read("model.layers.0.mlp.up_proj.weight").numpy(), stored["blk.0.ffn_up.weight"])


@pytest.mark.parametrize(
    ("pre_tokenizer", "leave_out", "said"),
    [
        ("kimi-k2", "", "names the pre-tokenizer 'kimi-k2'"),
        ("smollm", "blk.0.ffn_up", "lacks 1 tensors of its model, among them model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_what_cannot_be_imported_whole_leaves_nothing(
    home: EmbeddedInstance, pre_tokenizer: str, leave_out: str, said: str, tmp_path: Path
) -> None:
    vocabulary = train_byte_level(LINES, 400)
    file = write_llama(tmp_path / "broken.gguf", pre_tokenizer, *vocabulary, leave_out=leave_out)
    with pytest.raises(SecateurError) as refused:
        add_model(home, "broken", file, say=quiet)
    assert refused.value.problem()["code"] == "unusable_model" and said in refused.value.problem()["message"]
    assert list(home.settings.models_root.iterdir()) == []


def test_an_import_that_takes_too_long_is_ended(
    home: EmbeddedInstance, small_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "IMPORT_SECONDS", -1e9)
    with pytest.raises(UnusableModel, match="could not be imported within the time"):
        add_model(home, "small", small_gguf, say=quiet)


def test_an_older_conversion_of_the_sample_is_made_again_and_once(
    home: EmbeddedInstance, small_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    said: list[str] = []

    def fetch(file: object, target: Path, settings: object, say: object) -> Path:
        fetched.append(file)
        eventually(lambda: any("waiting" in each for each in said))  # until the other has come
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(small_gguf.read_bytes())
        return target

    monkeypatch.setattr(language, "fetch", fetch)
    home.settings.datasets_root.mkdir(parents=True, exist_ok=True)
    for name in (language.CALIBRATION, language.EVALUATION):
        (home.settings.datasets_root / f"{name}.jsonl").write_text('{"text": "words"}\n')
    add_model(home, language.MODEL, small_gguf, source=language.SMOLLM2.requirement, say=quiet)
    folder = home.settings.models_root / language.MODEL
    (folder / "tokenizer.json").write_text("as it was converted before")
    with ThreadPoolExecutor(2) as two:  # as two processes may
        for done in [two.submit(language.add_samples, home, said.append) for _ in range(2)]:
            done.result()
        assert sum("waiting" in each for each in said) == 1
    with transaction(home.sessions) as session:
        row = find_row(session, ModelRow, home.team_id, language.MODEL)
        assert row is not None and row.source == language.MODEL_SOURCE
    assert open_model(folder).tokenizer()("a 12")["input_ids"] and fetched == [language.SMOLLM2]

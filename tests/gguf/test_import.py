"""GGUF files taken into a home: converted in a runner, and refused with a reason."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from gguf import GGUFReader

from core.engine.exporters.probe_lines import varied_lines
from core.engine.models.folder import open_model
from core.settings import Settings
from secateur_wire.errors import SecateurError, UnusableModel
from tests.gguf.files import train_byte_level, write_llama
from tests.gguf.llama_cpp import llama_cpp_ids
from worker.embedded import register
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_model

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

"""What models write after the same prompts, and how a model card shows it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file

from core.engine.evaluation.continuations import compare_continuations
from core.engine.models.accelerator import DeviceBackend
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from tests.recipes import recipe_of
from tests.sources.conftest import write_wordy_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_model(write_wordy_model(tmp_path_factory.mktemp("models") / "dense"))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_model(write_wordy_model(tmp_path_factory.mktemp("models") / "pruned", seed=1))


@torch.inference_mode()
def likeliest(folder: ModelFolder, words: Sequence[int], tokens: int) -> str:
    """Token by token, without a cache: the text of what comes after `words`, up to the token that ends it."""
    model, ids = load_model(folder, CPU), list(words)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            ids.pop()
            break
    return "".join(f" w{word}" for word in ids[len(words) :])


def test_each_model_goes_on_with_its_likeliest_words(dense: ModelFolder, pruned: ModelFolder) -> None:
    heard: list[float] = []
    prompts = ["w5 w6 w7", "<b>w8</b> ``` w9"]
    written = compare_continuations(
        {"dense": dense, "pruned": pruned}, prompts, tokens=8, device=CPU, on_progress=heard.append
    )
    rows = written["generations"]
    assert [row["prompt"] for row in rows] == prompts and not written["notes"]
    for row, words in zip(rows, ([5, 6, 7], [3, 3, 9]), strict=True):
        assert row["dense"] == likeliest(dense, words, 8) != row["pruned"] == likeliest(pruned, words, 8)
    assert heard == [0.25, 0.5, 0.75, 1.0]


def test_a_model_without_room_or_sense_is_left_out_and_a_note_says_why(
    dense: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_wordy_model(tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    written = compare_continuations({"dense": dense, "pruned": open_model(folder)}, ["w5", "w6"], tokens=8, device=CPU)
    rows, notes = written["generations"], written["notes"]
    assert all(row["dense"] and row["pruned"] is None for row in rows)
    assert len(notes) == 1 and notes[0].startswith("The pruned model wrote nothing") and "not finite" in notes[0]
    monkeypatch.setattr(DeviceBackend, "free_bytes", lambda self: 1000)
    written = compare_continuations({"dense": dense}, ["w5"], tokens=8, device=CPU)
    assert written["generations"] == [{"prompt": "w5", "dense": None}] and "1000 are free on cpu" in written["notes"][0]


def test_a_card_shows_any_text_as_it_is() -> None:
    texts = [
        "# No heading",
        "```\n<script>alert(1)</script>\n```\n",
        "~~~\n````` | a |\n[link](x)\r\n",
        "    - a\n\n---\n",
    ]
    written = [
        {"prompt": text, "dense": text, "pruned": after}
        for text, after in zip(texts, ["", None, "a", "b"], strict=True)
    ]
    figures = {"dense": 10, "nonzero": 5, "artifact": 10}
    metrics = {"sparsity": {"prunable": 0.5, "model": 0.4}, "perplexity": {}, "parameters": figures, "bytes": figures}
    recipe = recipe_of(evaluation={"prompts": texts})
    card = model_card(recipe, Report.model_validate({"metrics": metrics, "generations": written}))
    tokens = MarkdownIt().parse(card.partition("---\n\n")[2])
    assert not [token for token in tokens if token.type.startswith(("html", "list", "hr"))]
    blocks = [token.content for token in tokens if token.type == "fence" and token.info == "text"]
    expected = [shown for row in written for shown in (row["prompt"], row["dense"], row["pruned"]) if shown]
    assert blocks == [f"{text}\n".replace("\r\n", "\n") for text in expected]

"""What is left of a cut, fitted to what the dense model gave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.artifacts.checkpoint import write_checkpoint
from core.errors import InvalidRequest
from core.models.folder import open_model
from core.models.skeleton import Skeleton, call_block
from core.models.weights import load_tensors
from core.pruning.methods.depth import Depth
from core.pruning.streams import block_arguments
from core.pruning.structure import Cut, LayerCut
from core.pruning.walk import Observer, PruneResult
from tests.engine.sweeping import tensors_of
from tests.engine.test_per_layer import prune as prune_per_layer
from tests.engine.test_structured import edit, removal
from tests.engine.tiny import make_model, make_tokens

DEPTH = {"criterion": "angular"}
SECOND_LAYER_GONE = Cut(attention="none", layers={layer: LayerCut() for layer in (0, 2, 3)})
FEW_STEPS = {"budget": "quick", "steps": 10, "batch_size": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"), num_hidden_layers=4)


def cut(
    folder: Path, work: Path, method: str, compensation: dict[str, Any] | None, sparsity: float = 0.25, **setting: Any
) -> PruneResult:
    parameters = setting.pop("parameters", {})
    if compensation is not None:
        parameters = parameters | {"compensation": compensation}
    calibration = make_tokens(16)
    return removal(folder, work, method, sparsity, parameters=parameters, **{"calibration": calibration} | setting)


def last_hidden(folder: Path, tokens: Tensor) -> Tensor:
    """Of a model folder: hidden states after the last block, before the final norm."""
    opened = open_model(folder, own_artifact=True)
    skeleton = Skeleton(opened, dtype=torch.float32, device=torch.device("cpu"))
    hidden = skeleton.embed(tokens)
    arguments = block_arguments(skeleton, tokens.shape[1], torch.float32)
    with torch.inference_mode():
        for index in range(len(skeleton)):
            hidden = call_block(
                skeleton.fill_block(index, skeleton.read_block(index), torch.float32), hidden, arguments[index]
            )
    return hidden


def drift(result: PruneResult, folder: Path, place: Path, tokens: Tensor) -> float:
    """‖h − ĥ‖ / ‖h‖ at the end of the blocks of the dense model and of what is left."""
    write_checkpoint(result.files, result.unchanged, folder, place, config=result.config)
    dense = last_hidden(folder, tokens)
    return float((dense - last_hidden(place, tokens)).norm() / dense.norm())


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("random-structured", {}), ("l2-structured", {}), ("llm-pruner", {}), ("depth", DEPTH)],
)
def test_nothing_asked_for_is_nothing_done(
    method: str, parameters: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    plain = tensors_of(cut(tiny, tmp_path / "plain", method, None, parameters=parameters))
    same = tensors_of(cut(tiny, tmp_path / "same", method, {"refit": 0}, parameters=parameters))
    assert all(torch.equal(plain[name], same[name]) for name in plain)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "gemma2", "olmo2", "gpt-neox", "opt"])
@pytest.mark.parametrize("method", ["depth", "random-structured"])
def test_what_is_left_comes_closer_to_the_dense_model(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the tokens it was fitted to; with every weight layout, and with or without a norm before the stream."""
    monkeypatch.setattr(Depth, "choose", lambda method, scene: SECOND_LAYER_GONE)
    folder = make_model(tmp_path / "model", name, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 4})
    found = []
    for number, compensation in enumerate((None, {"refit": 1.0})):
        result = cut(folder, tmp_path / f"{number}", method, compensation)
        found.append(drift(result, folder, tmp_path / f"{number}-artifact", make_tokens(16)))
    print(found)
    assert found[1] < found[0] * 0.98


@pytest.mark.parametrize("method", ["loraprune", "lorashear", "bonsai"])
def test_methods_that_train_or_measure_refit_what_they_leave(method: str, tiny: Path, tmp_path: Path) -> None:
    few = {"masks_per_round": 10, "round_share": 0.3} if method == "bonsai" else FEW_STEPS
    if method == "lorashear":
        few = few | {"periods": 1}
    found = []
    for number, compensation in enumerate((None, {"refit": 1.0})):
        result = cut(tiny, tmp_path / f"{number}", method, compensation, parameters=few)
        found.append(drift(result, tiny, tmp_path / f"{number}-artifact", make_tokens(16)))
    assert found[1] < found[0]

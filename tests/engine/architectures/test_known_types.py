"""Known refusals of types: those that a discovery would give, and never more."""

import json
from pathlib import Path

import pytest

from core.engine.architectures.discovered import DISCOVERY_VERSION
from core.engine.architectures.known_types import FILE, known_refusal
from core.engine.architectures.undiscovered import UndiscoveredModel

STACKED = {"model.layers.0.mlp.experts.gate_up_proj": (4, 64, 32)}
NUMBERED = {f"model.layers.0.mlp.experts.{expert}.up_proj.weight": (64, 32) for expert in range(2)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The types as they are known, as if they had been tried with a version of the library called 9.0."""
    known = json.loads(FILE.read_bytes()) | {"transformers": "9.0", "discovery": DISCOVERY_VERSION}
    (tmp_path / "known_types.json").write_text(json.dumps(known))
    return tmp_path / "known_types.json"


def model(family: str, tensors: dict[str, tuple[int, ...]]) -> UndiscoveredModel:
    stored = {name: ("BF16", shape) for name, shape in tensors.items()}
    return UndiscoveredModel.of({}, stored, family=family, architecture="X", parameters=1, bytes=2, dtype="bfloat16")


@pytest.mark.parametrize(
    ("family", "tensors", "version", "is_refused"),
    [
        ("dbrx", NUMBERED, "9.0", True),
        ("dbrx", STACKED, "9.0", True),
        ("dbrx", NUMBERED, "9.1", False),
        ("mixtral", NUMBERED, "9.0", False),
        ("llama", NUMBERED, "9.0", False),
        ("of-tomorrow", NUMBERED, "9.0", False),
        # A type of mixtures has models without experts, or with one; other reasons follow from settings too.
        ("granitemoehybrid", {"model.layers.0.shared_mlp.input_linear.weight": (64, 32)}, "9.0", False),
        ("dbrx", {"model.layers.0.mlp.experts.0.up_proj.weight": (64, 32)}, "9.0", False),
        ("dbrx", {"model.layers.0.mlp.experts.gate_up_proj": (1, 64, 32)}, "9.0", False),
        ("dbrx", {"model.layers.0.mlp.shared_experts.1.up_proj.weight": (64, 32)}, "9.0", False),
        ("rwkv", NUMBERED, "9.0", False),
    ],
)
def test_a_refusal_is_known_where_type_tensors_and_versions_say_so(
    family: str, tensors: dict[str, tuple[int, ...]], version: str, is_refused: bool, file: Path
) -> None:
    refusal = known_refusal(model(family, tensors), version, file)
    assert (refusal is not None) is is_refused
    assert refusal is None or refusal.startswith(f"{family}: its experts are not pruned: ")


def test_what_was_tried_with_another_discovery_is_not_known(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"discovery": DISCOVERY_VERSION - 1}))
    assert known_refusal(model("dbrx", NUMBERED), "9.0", file) is None

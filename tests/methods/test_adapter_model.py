"""Methods that train adapters while they prune: exact counts, what is trained is what is saved, frozen weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.structure import LayerShape
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import removed_kinds
from core.engine.models.tensors import load_tensors
from core.engine.pruning.schedule import counts_at, cubic
from core.engine.pruning.units.removal import KeptUnits, UnitCounts, kept_mask
from core.engine.recovery.adapters import MaskedLoraLinear, add_adapters
from core.engine.removals.widths import WidthOptions, plan_width_reduction
from core.engine.resume.kinds import SELECTION
from core.methods.adapter_model import AdapterModel, estimated_gradient
from core.methods.lorashear import HalfSpaceSchedule, UnitBundle, half_space_step, most_damaging
from core.methods.registry import parse_parameters
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import WorkStopped
from secateur_wire.errors import InvalidParameters
from secateur_wire.recovery import Lora
from tests.engine.crossing import crossed
from tests.engine.pruning.test_structured import edit, removal, save
from tests.engine.resuming import saved_state
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

QUICK: dict[str, Any] = {"steps": 20, "batch_size": 2, "learning_rate": 1e-3, "lora": {"r": 4, "alpha": 8}}
METHODS = {"loraprune": QUICK, "lorashear": QUICK | {"periods": 2, "bundles": 4}}


KINDS: dict[str, tuple[torch.dtype, str | None]] = {
    "phi3": (torch.bfloat16, "kv_groups"),
    "gpt2": (torch.float32, None),
}


@crossed("family, method", list(KINDS), list(METHODS))
def test_every_layer_keeps_what_was_asked_and_what_was_trained_is_what_loads(
    family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, attention = KINDS[family]
    folder = make_model(tmp_path / "model", family, dtype=dtype)
    tokens, trained = make_tokens(2, seed=5), []
    original = AdapterModel.write_merged

    def remember(self: AdapterModel) -> None:
        with torch.no_grad():
            trained.append(self.module(input_ids=tokens).logits)
        original(self)

    monkeypatch.setattr(AdapterModel, "write_merged", remember)
    parameters = METHODS[method] | {"attention": attention}
    result = removal(folder, tmp_path / "work", method, 0.25, parameters=parameters)
    description = inspect_folder(folder)
    checked = parse_parameters(method, parameters)
    assert isinstance(checked, WidthOptions)
    counts = (plan_width_reduction(description, checked, 0.25).counts or ())[0]
    assert result.removed == counts.removed * description.layers > 0
    artifact = save(result, folder, tmp_path / "artifact")
    loaded, info = AutoModelForCausalLM.from_pretrained(artifact, output_loading_info=True, dtype="auto")
    assert not any(info.values())
    with torch.no_grad():
        expected = load_tensors(result.verification)
        torch.testing.assert_close(loaded(expected["tokens"]).logits.float(), expected["logits"], atol=1e-4, rtol=1e-4)
        exact = {"atol": 0.05, "rtol": 0.05} if dtype is torch.bfloat16 else {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(loaded(tokens).logits.float(), trained[0], **exact)
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    ends = {name for name, each in loaded.state_dict().items() if torch.equal(each, dense.get(name, torch.zeros(0)))}
    assert {name for name in dense if "embed_tokens" in name or "wte" in name} <= ends, "what is not adapted stays"


def test_the_gradient_is_what_a_step_of_unit_rate_takes_off_the_update() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5))
    adapter_model = add_adapters(model, Lora(r=2, alpha=6, dropout=0), ["0"], transposed=False)  # type: ignore[arg-type]
    linear = adapter_model.model[0]
    assert isinstance(linear, MaskedLoraLinear)
    A, B = linear.lora_A["default"].weight, linear.lora_B["default"].weight
    torch.nn.init.normal_(B)
    adapter_model(torch.randn(3, 6)).square().sum().backward()
    assert A.grad is not None and B.grad is not None
    before = 3.0 * B @ A
    after = 3.0 * (B - B.grad) @ (A - A.grad)
    torch.testing.assert_close(estimated_gradient(linear), before - after)


@pytest.mark.parametrize("method", [*METHODS, "l2-structured", "llm-pruner"])
def test_planted_useless_groups_are_found(method: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama")

    def useless(rows: slice, dimension: int) -> Any:
        return lambda weight: weight.narrow(dimension, rows.start, rows.stop - rows.start).mul_(1e-3)

    heads, channels = {0: 1, 1: 0, 2: 1}, slice(11, 19)
    for layer, kv in heads.items():
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        query, key = slice(kv * 16, kv * 16 + 16), slice(kv * 8, kv * 8 + 8)
        edit(folder, {
            f"{attention}.q_proj.weight": useless(query, 0),
            f"{attention}.k_proj.weight": useless(key, 0),
            f"{attention}.v_proj.weight": useless(key, 0),
            f"{attention}.o_proj.weight": useless(query, 1),
            f"{mlp}.gate_proj.weight": useless(channels, 0),
            f"{mlp}.up_proj.weight": useless(channels, 0),
            f"{mlp}.down_proj.weight": useless(channels, 1),
        })  # fmt: skip
    parameters = METHODS.get(method, {}) | (
        {"exempt": 0} if method == "lorashear" else {}
    )  # absence may help a random model
    removal(folder, tmp_path / "work", method, 0.25, parameters=parameters)
    kept = chosen(tmp_path / "work")
    left = [channel for channel in range(48) if channel not in range(11, 19)]
    assert {layer: each["heads"] for layer, each in kept.layers.items()} == {0: [0], 1: [1], 2: [0]}
    assert all(each["channels"] == left for each in kept.layers.values())


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.sampled_from([0.0, 0.3, 0.9]))
def test_a_group_becomes_zero_exactly_when_its_step_leaves_the_half_space(seed: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    moved = x + 0.5 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    length = 2 * x.norm(dim=1) * torch.rand(6, generator=generator, dtype=torch.float64)
    length[0] = 0
    trial = moved - length[:, None] * x / x.norm(dim=1, keepdim=True)
    zero, share = half_space_step(x.square().sum(1), (moved * x).sum(1), length, epsilon)
    leaves = (trial * x).sum(1) < epsilon * x.square().sum(1)
    assert torch.equal(zero[1:], leaves[1:]) and not zero[0] and share[0] == 0
    torch.testing.assert_close((moved - share[:, None] * x)[~zero], trial[~zero])
    assert (share[zero] == 0).all()


def test_what_goes_shrinks_in_a_line_until_the_period_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = HalfSpaceSchedule.after_step

    def look(self: HalfSpaceSchedule, step: int) -> None:
        original(self, step)
        unit_set = self._adapter_model.unit_sets[0][1]
        weight = self._adapter_model.weight(0, unit_set.slices[0])
        if self.kept.layers and weight is not None:
            norms.append(float(weight[~kept_mask(self.kept.layers[0].get(unit_set.kind), unit_set.units)].norm()))

    monkeypatch.setattr(HalfSpaceSchedule, "after_step", look)
    parameters = QUICK | {"periods": 1, "learning_rate": 1e-6}
    removal(make_model(tmp_path / "model"), tmp_path / "work", "lorashear", 0.25, parameters=parameters)
    for step, norm in enumerate(norms[:14]):
        assert norm / norms[0] == pytest.approx((15 - step) / 15, abs=1e-3)


def test_the_damage_of_a_bundle_is_what_the_loss_rises_by_without_it_and_the_costliest_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tokens = make_model(tmp_path / "model", "gemma3"), make_tokens(3)
    found, exempt = list[UnitBundle](), list[UnitBundle]()

    def look(bundles: list[UnitBundle], share: float) -> list[UnitBundle]:
        found.extend(bundles)
        exempt.extend(most_damaging(bundles, share))
        return exempt

    monkeypatch.setattr("core.methods.lorashear.most_damaging", look)
    parameters = QUICK | {"periods": 1, "exempt": 0.2, "bundles": 6}
    removal(folder, tmp_path / "work", "lorashear", 0.25, parameters=parameters, calibration=tokens)
    kept = chosen(tmp_path / "work").layers
    assert exempt and all(set(each.units) <= set(kept[each.layer].get(each.kind, each.units)) for each in exempt)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def loss() -> float:
        with torch.no_grad():
            return float(model(input_ids=tokens, labels=tokens).loss)

    whole = loss()
    for bundle in (found[0], found[-1], found[len(found) // 2]):
        name = "self_attn.o_proj" if bundle.kind == "heads" else "mlp.down_proj"
        weight = model.get_parameter(f"model.layers.{bundle.layer}.{name}.weight")
        size = 16 if bundle.kind == "heads" else 1
        kept = weight.detach().clone()
        with torch.no_grad():
            for unit in bundle.units:
                weight[:, unit * size : unit * size + size] = 0
            assert bundle.damage == pytest.approx(loss() - whole, abs=1e-4)
            weight.copy_(kept)
    assert sum(len(each.units) for each in found if each.layer == 1 and each.kind == "channels") == 48


def chosen(work: Path) -> KeptUnits:
    return KeptUnits(layers=UnitCounts.model_validate(saved_state(work, SELECTION)).kept or {})


def test_what_was_trained_and_chosen_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, folder, text = "loraprune", make_model(tmp_path / "model"), {"text": make_tokens(seed=1)}

    def attempt(name: str, **more: Any) -> Any:
        return removal(folder, tmp_path / name, method, 0.25, parameters=METHODS[method], evaluations=text, **more)

    whole = attempt("whole")
    with pytest.raises(WorkStopped):
        attempt("one", progress=Watching(stop_after=1))

    def refuse(self: AdapterModel, tokens: Tensor, rule: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(AdapterModel, "train", refuse)
    again = attempt("two", previous=[tmp_path / "one"])
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]
    assert again.notes == whole.notes and "trained" in whole.notes[0]


@pytest.mark.parametrize("steps", [10, 37])
def test_the_schedule_is_cubic_between_warm_up_and_cool_down_and_ends_exactly(steps: int) -> None:
    shares = [cubic(done, steps) for done in range(1, steps + 1)]
    assert shares == sorted(shares) and set(shares[: steps // 10]) == {0.0}
    resting = [share for done, share in enumerate(shares, 1) if done >= 0.9 * steps]
    assert set(resting) == {1.0} and len(resting) >= steps // 10
    assert cubic(50, 100) == pytest.approx(1 - 0.5**3) and cubic(90, 100) == 1.0 and cubic(89, 100) < 1
    shape, kinds = LayerShape(channels=48, heads=8, kv_heads=2, parameters=0), removed_kinds("query_heads")
    wanted = LayerCounts({"heads": 4, "channels": 31}, removed=7)
    kept = [counts_at(share, wanted, shape, kinds) for share in shares]
    assert kept[-1] == wanted and all(each.units["heads"] % 2 == 0 for each in kept)
    assert all(a.units["channels"] >= b.units["channels"] for a, b in pairwise(kept))
    assert counts_at(0, wanted, shape, kinds).units == {"heads": 8, "channels": 48}


def test_adapters_go_on_every_linear_layer(tmp_path: Path) -> None:
    description = inspect_folder(make_model(tmp_path / "model"))
    with pytest.raises(InvalidParameters, match=r"parameters.lora: .*leave it out"):
        resolve_request(description, UnresolvedRequest("loraprune", None, 0.25, {"lora": {"targets": ["q_proj"]}}))

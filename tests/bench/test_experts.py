"""The experts' bench: a dense model as a mixture computes the same, experts come to differ, tables count right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench.claims.sources import LanguageFiles
from bench.experts import prune_cell, report
from bench.experts.layouts import as_mixtral, as_qwen3_moe
from bench.experts.plan import LAYOUTS, MERGED, REAP, REFITTED, ROWS, Plan, Pruning, Recipe
from bench.experts.running import Bench, Sizes
from bench.experts.upcycle import mixtures, routers, upcycled
from bench.experts.upcycle_cell import difference
from core.engine.models.tensors import write_tensors
from tests.engine.tiny import make_tokens
from tests.families import LANGUAGE_CONFIGS

EXPERTS, EVERY = 4, 3
RECIPE = Recipe(experts=EXPERTS, every=EVERY, steps=6, batch=2)


@pytest.fixture(scope="module")
def dense() -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LANGUAGE_CONFIGS["llama"][1])).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    return model(input_ids=make_tokens(), use_cache=False).logits.float()


def test_a_mixture_of_copies_computes_what_the_dense_model_does_in_both_layouts(
    dense: LlamaForCausalLM, tmp_path: Path
) -> None:
    """Wherever tokens go, and as the stock classes open it: queries and keys are not normalised in effect."""
    mixture = as_qwen3_moe(dense, experts=EXPERTS, top_k=2, every=EVERY)
    for router in routers(mixture):
        router.data.normal_()
    expected = logits(dense)
    for name, model in zip(LAYOUTS, (mixture, as_mixtral(mixture)), strict=True):
        model.save_pretrained(tmp_path / name)
        opened = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert opened.config.model_type == name.replace("-", "_") and opened.config.num_local_experts == EXPERTS
        torch.testing.assert_close(logits(opened), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    assert list(mixtures(mixture)) == ["model.layers.2.mlp.experts"]


def test_training_sets_experts_apart_and_leaves_all_else_as_it_was(dense: LlamaForCausalLM) -> None:
    mixture, losses = upcycled(dense, RECIPE, make_tokens(16))
    _, repeated = upcycled(dense, RECIPE, make_tokens(16))
    assert losses == repeated and len(losses) == RECIPE.steps
    apart = difference(mixture, make_tokens(2))
    assert list(apart) == ["model.layers.2.mlp.experts"] and 0.1 < apart["model.layers.2.mlp.experts"] < 2**0.5
    copies = as_qwen3_moe(dense, experts=EXPERTS, top_k=2, every=EVERY).to(torch.bfloat16)
    assert set(difference(copies, make_tokens(2)).values()) == {0.0}
    changed = {
        name
        for name, tensor in mixture.state_dict().items()
        if not torch.equal(tensor, copies.state_dict()[name].to(tensor.dtype))
    }
    assert changed == {
        f"model.layers.2.mlp.{name}" for name in ("experts.gate_up_proj", "experts.down_proj", "gate.weight")
    }


def test_cells_prune_the_mixture_as_jobs_do_and_judge_what_stock_classes_open(
    dense: LlamaForCausalLM, tmp_path: Path
) -> None:
    model, architecture = tmp_path / "model", tmp_path / "architecture.json"
    upcycled(dense, RECIPE, make_tokens(16))[0].save_pretrained(model)
    write_tensors(tmp_path / "tokens", {"tokens": make_tokens(16)})
    inputs = {"model": str(model), "held_out": str(tmp_path / "tokens"), "output": str(tmp_path / "output")}
    before = prune_cell.work({"method": None} | inputs)
    inputs |= {"architecture": str(architecture), "tokens": str(tmp_path / "tokens")}
    found = {}
    for row in (ROWS[REFITTED], ROWS["wanda"]):
        work = {"method": row.method, "parameters": dict(row.parameters), "sparsity": 0.5}
        found[row.title] = prune_cell.work(work | {"removed": int(row.drops)} | inputs)
    dropped, zeroed = found.values()
    assert [len(each) for each in dropped["reached"]] == [EXPERTS - 1]
    assert sum(dropped["reached"][0]) == sum(before["reached"][0]) == 2 * make_tokens(16).numel()
    assert dropped["bytes"] < before["bytes"] and dropped["parameters"] < before["parameters"]
    (errors,) = dropped["errors"]
    assert errors[1] <= errors[0] and zeroed["errors"] == []
    assert zeroed["parameters"] == before["parameters"] and zeroed["perplexity"] != before["perplexity"]
    assert architecture.exists() and not (tmp_path / "output").exists()


def test_a_mixture_whose_gates_do_not_add_up_to_one_is_no_mixtral(dense: LlamaForCausalLM) -> None:
    mixture = as_qwen3_moe(dense, experts=EXPERTS, top_k=2, every=EVERY)
    mixture.config.norm_topk_prob = False
    with pytest.raises(ValueError, match="norm_topk_prob"):
        as_mixtral(mixture)


def test_the_first_seed_comes_first_and_weights_have_their_own_number_of_seeds() -> None:
    cells = list(Plan(list(ROWS), seeds=3, weight_seeds=1).prunings())
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    dropping = [row for row in ROWS.values() if row.drops]
    assert len(cells) == len(set(cells)) == 3 * 2 * len(dropping) + len(ROWS) - len(dropping)


def test_the_tables_compare_the_seeds_that_both_rows_have(tmp_path: Path) -> None:
    bench = a_bench(tmp_path)
    found = {(REAP, 0): 12.0, (REAP, 1): 15.0, (REFITTED, 0): 11.0, (MERGED, 0): 12.0, ("wanda", 0): 20.0}
    for (row, seed), perplexity in found.items():
        bench.found[Pruning(row, "50" if ROWS[row].drops else None, seed)] = some_figures(perplexity)
    ratio = report.against_reap(bench, REFITTED, "50")
    assert ratio == pytest.approx(0.5228, abs=1e-3)  # ln 1.1 ÷ ln 1.2: seed 1 has no refit
    assert report.against_reap(bench, REFITTED, "25") is None
    text = report.page(bench)
    assert f"{REFITTED}: 0.52 of REAP's excess, reached" in text and f"{MERGED}: 1.00 of REAP's excess, missed" in text
    assert "13.500 ± 2.121 (2)" in text
    (frequency, *_) = [line for line in text.splitlines() if line.startswith("| frequency ")]
    assert set(frequency.split("|")[2:-1]) and all(each.strip() == "–" for each in frequency.split("|")[2:-1])
    assert "20.000" in text.split("of the weights")[1]


def test_an_even_routing_is_one() -> None:
    assert report.busiest([[4, 4, 4, 4]]) == 1
    assert report.busiest([[4, 4, 4, 4], [8, 0, 0, 0]]) == 2.5


def a_bench(folder: Path) -> Bench:
    files = LanguageFiles(*(folder / name for name in ("model", "calibration", "evaluation", "questions")))
    bench = Bench(Plan(list(ROWS), 2, 1), Sizes(), RECIPE, files, [files.calibration], 1)
    bench.made = {
        "recipe": {}, "losses": [3.0] * 6, "processor_seconds": 1.0, "dense_perplexity": 9.0,
        "misrouted_perplexity": 30.0, "difference": {"model.layers.2.mlp.experts": 0.5},
    }  # fmt: skip
    bench.before = {layout: some_figures(10.0) for layout in LAYOUTS}
    return bench


def some_figures(perplexity: float) -> dict[str, Any]:
    return {
        "perplexity": perplexity, "bytes": 2**20, "parameters": 10, "tokens_per_second": 5.0, "prune_seconds": 1.0,
        "reached": [[1, 3]],
    }  # fmt: skip

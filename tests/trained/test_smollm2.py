"""What must hold on a trained model: SmolLM2-135M, on text not used for calibration."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.engine.evaluation.perplexity import MeasuredPerplexity
from core.engine.models.folder import ModelFolder
from core.engine.models.streamed import StreamedModel
from core.engine.options.patterns import UNSTRUCTURED
from core.engine.pruning.input_statistics import InputStatistic, Statistic, relative_error
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.solver import PrunableLinear, Solver
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.store import ResumeStore
from core.methods.engine import build_method
from core.methods.registry import parse_parameters
from tests.engine.sweeping import sweep


@pytest.mark.parametrize(
    ("every", "text"), [(15, "little_calibration"), pytest.param(1, "calibration", marks=pytest.mark.nightly)],
    ids=["two blocks", "all blocks"],
)  # fmt: skip
def test_reconstruction_error_sparsegpt_below_wanda_below_magnitude_on_every_layer(
    every: int, text: str, smollm2: ModelFolder, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """All three on the same inputs: those of the dense model."""
    streamed = StreamedModel(smollm2, dtype=torch.float32, device=torch.device("cpu"))
    stream = Stream(
        "dense", request.getfixturevalue(text)[:4], streamed, ResumeStore(tmp_path, ""), ActivationBudget(2**30),
        dtype=torch.float32, micro_batch=8,
    )  # fmt: skip
    methods = {
        name: build_method(name, parse_parameters(name, {}), (Solver,)) for name in ("sparsegpt", "wanda", "magnitude")
    }
    target = LayerTarget(UNSTRUCTURED, 0.5)
    chosen = range(0, len(streamed), every)
    checked = 0
    with torch.inference_mode():
        stream.start()
        for index in range(chosen[-1] + 1):
            block = streamed.fill_block(index, streamed.read_block(index), torch.float32)
            groups = [InputGroup(names) for names in smollm2.family.inputs]
            gathered = BlockPropagation(
                block, index, stream, groups, lambda: InputStatistic(Statistic.GRAM, sample_stride=1)
            ).collect() if index in chosen else {}  # fmt: skip
            for group, statistic in gathered.items():
                linears = [
                    PrunableLinear(name, 0, block.get_submodule(name).weight.float(), target) for name in group.linears
                ]
                errors = {}
                for name, method in methods.items():
                    pruned = method.prune(linears, statistic, lambda text: None)
                    errors[name] = [
                        relative_error(
                            *(float(statistic.energy(each)) for each in (linear.weight_OI, linear.weight_OI - weight))
                        )
                        for linear, weight in zip(linears, pruned, strict=True)
                    ]
                for place, linear in enumerate(linears):
                    figures = [errors[name][place] for name in ("sparsegpt", "wanda", "magnitude")]
                    assert figures[0] < figures[1] < figures[2], (index, linear.name, figures)
                    checked += 1
            stream.advance(block, index)
            streamed.empty_block(index)
    assert checked == 7 * len(chosen)


def test_what_knows_its_inputs_keeps_what_magnitude_loses_and_a_pattern_costs(
    smollm2: ModelFolder, little_calibration: Tensor, little_text: Tensor, tmp_path: Path
) -> None:
    """The orders that are far apart: little text tells them too, and one layer in three."""
    known: dict[str, MeasuredPerplexity] = {}
    dense = [layer for layer in range(smollm2.description.layers) if layer % 3]

    def pruned(method: str, pattern: str) -> float:
        result = sweep(
            smollm2.path, tmp_path / f"{method}-{pattern.replace(':', '-')}", method=method, pattern=pattern,
            calibration=None if method == "magnitude" else little_calibration[:1, :64],
            evaluations={"text": little_text[:1, :64]}, sparsity=0.5, dense_perplexity=known,
            parameters={"skip_layers": dense},
        )  # fmt: skip
        known["text"] = result.perplexity["text"].measured_dense
        return result.perplexity["text"].pruned

    wanda, wanda_2_4, magnitude_2_4 = (
        pruned("wanda", "unstructured"),
        pruned("wanda", "2:4"),
        pruned("magnitude", "2:4"),
    )
    print(f"perplexity: dense {known['text'].value:.2f}, wanda {wanda:.2f}, its 2:4 {wanda_2_4:.2f}, "
          f"magnitude's {magnitude_2_4:.2f}")  # fmt: skip
    assert known["text"].value * 1.5 < wanda < wanda_2_4 / 1.5
    assert wanda_2_4 * 2 < magnitude_2_4


@pytest.mark.nightly
def test_methods_and_patterns_stand_in_the_papers_order(
    smollm2: ModelFolder, calibration: Tensor, evaluation: Tensor, tmp_path: Path
) -> None:
    known: dict[str, MeasuredPerplexity] = {}

    def pruned(method: str, pattern: str, **parameters: str) -> float:
        result = sweep(
            smollm2.path, tmp_path / "-".join([method, pattern.replace(":", "-"), *parameters]), parameters=parameters,
            calibration=None if method == "magnitude" else calibration, evaluations={"text": evaluation},
            method=method, pattern=pattern, sparsity=0.5, dense_perplexity=known,
        )  # fmt: skip
        known["text"] = result.perplexity["text"].measured_dense
        return result.perplexity["text"].pruned

    wanda = pruned("wanda", "unstructured")
    allocated = pruned("wanda", "unstructured", allocation="fisher")
    sparsegpt = pruned("sparsegpt", "unstructured")
    sparsegpt_2_4 = pruned("sparsegpt", "2:4")
    magnitude = pruned("magnitude", "unstructured")
    print(f"perplexity: dense {known['text'].value:.2f}, wanda {wanda:.2f}, with allocation {allocated:.2f}, "
          f"sparsegpt {sparsegpt:.2f}, its 2:4 {sparsegpt_2_4:.2f}, magnitude {magnitude:.2f}")  # fmt: skip
    assert known["text"].value < wanda / 1.2 < sparsegpt < wanda * 1.2, "about the same, on as few tokens as these"
    assert allocated < wanda * 0.97
    assert wanda * 3 < magnitude
    assert sparsegpt < sparsegpt_2_4

"""Measurement of claim 10."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.claims.language import Language
from bench.claims.record import Record
from bench.sources import judge_folder
from core.engine.models.folder import open_model
from core.engine.pruning.layerwise.plan import LayerwisePlan
from core.engine.quantization.gptq.method import GPTQ
from core.engine.removals.run import language_run
from core.pipeline.plans import make_plan
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Each rounding of the judge on the same windows, and its perplexity on both texts."""
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    language = replace(language, folder=open_model(judge_folder()))
    for line, (method, sparsity, bits) in setting["lines"].items():
        found = _perplexities(language, method, sparsity, GPTQ(bits, setting["group_size"], torch.bfloat16))
        for text, (dense, rounded) in found.items():
            record.fact(f"dense perplexity, {text}", dense)
            record.point("perplexity", line, text, rounded)


def _perplexities(
    language: Language, method: str, sparsity: float | None, rounding: GPTQ
) -> dict[str, tuple[float, float]]:
    """Return the perplexity by text, dense and rounded."""
    folder = language.folder
    request = resolve_request(folder.description, UnresolvedRequest(method, None, sparsity, {}))
    device = torch.device("cpu")
    plan = make_plan(folder, request, device=device)
    assert isinstance(plan, LayerwisePlan)
    texts = {"articles": language.in_domain, "source code": language.out_of_domain}
    with TemporaryDirectory(prefix="claims-") as place:
        walk = language_run(request.pass_removal).walk(
            folder,
            replace(plan, rounding=rounding),
            device=device,
            calibration=language.calibration,
            evaluations=texts,
            work=Path(place),
        )
        return {name: (pair.dense, pair.pruned) for name, pair in walk.run().perplexity.items()}

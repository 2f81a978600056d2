"""A job of each kind leaves a model that loads and runs as its page says, and each figure is of the model it names: it
is compared with one computed apart by transformers.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from core.database import transaction
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import EvaluationSet, evaluation_set, paired_set
from core.engine.exporters.probe_lines import varied_lines
from core.pipeline.reports.report import ARTIFACT
from core.service.jobs.alternatives import job_with_measured
from secateur_wire.equal_bytes import EqualBytes
from secateur_wire.errors import ApiError
from secateur_wire.metrics import Metrics
from tests.gguf.trained import save_trained
from tests.runner.conftest import Finish, Work, artifact, give_model, give_text, shown_ways
from tests.shown_ways import run_here
from tests.worker.conftest import Queue

TEXTS, SAMPLES, LENGTH = {"lines": 5, "others": 6}, 12, 64
SAME = {"rel": 3e-5}
BFLOAT16 = {"dtype": "bfloat16"}
TOKENS = {"tokens": 450, "round_to": 8}
CALIBRATED = {"calibration": {"dataset": "lines", "samples": 4, "sequence_length": LENGTH}}
PRUNED = {"method": "magnitude", "sparsity": 0.5}
DEPTH = {"method": "depth", "sparsity": 0.3, **CALIBRATED}
INT8 = {"scheme": "int8"}
KINDS: dict[str, dict[str, Any]] = {
    "units": {"method": "l2-structured", "sparsity": 0.2, "output": BFLOAT16 | {"layout": "per_layer"}},
    "vocabulary-masks": PRUNED | {"vocabulary": TOKENS, "output": BFLOAT16, **CALIBRATED},
    "vocabulary-depth-codes": DEPTH | {"vocabulary": TOKENS, "output": BFLOAT16 | {"quantization": INT8}},
    "masks-codes": PRUNED | {"output": BFLOAT16 | {"quantization": INT8}},
    "stored": {"method": "none", "output": BFLOAT16},
    "stored-vocabulary-file": {"method": "none", "vocabulary": TOKENS, **CALIBRATED,
        "output": {"exports": [{"format": "gguf", "types": ["Q8_0"]}]}},
    "trained": PRUNED | {"output": BFLOAT16, "recovery": {"method": "finetune", "steps": 3, "batch_size": 2,
        "learning_rate": 1e-3, "dataset": "lines", "sequence_length": LENGTH}},
}  # fmt: skip


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    folder = save_trained(jobs.settings.models_root / "trained")
    give_model(jobs, "trained", folder)
    for name, seed in TEXTS.items():
        text = jobs.settings.datasets_root / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n\n".join(line for line in varied_lines(900, seed)[300:] if line.strip()))
        give_text(jobs, name, text)
    return {
        "model": "trained",
        "evaluation": {"datasets": list(TEXTS), "samples": SAMPLES, "sequence_length": LENGTH},
    }


class Apart:
    """Losses of a job's models on the windows of its texts, by transformers: dense, copies of it, and artifact."""

    def __init__(self, jobs: Queue, job_id: str) -> None:
        self._folders = jobs.settings.models_root / "trained", artifact(jobs, job_id)
        dense, new = (AutoTokenizer.from_pretrained(each) for each in self._folders)
        self.sets: dict[str, tuple[EvaluationSet, EvaluationSet]] = {}
        for name in TEXTS:
            documents = read_documents(jobs.settings.datasets_root / f"{name}.txt", "text", "text")
            asked: dict[str, Any] = {"samples": SAMPLES, "length": LENGTH, "name": name}
            if len(dense) == len(new):
                whole = evaluation_set(documents, dense, **asked)
                self.sets[name] = whole, whole
            else:
                pair = paired_set(documents, dense, new, **asked)
                self.sets[name] = pair.dense, pair.new

    def losses(self, model: str) -> dict[str, list[float]]:
        """Return the losses of the windows, per token of the dense model, by text."""
        opened = self._opened(model)
        return {name: _losses(opened, pair[model == ARTIFACT]) for name, pair in self.sets.items()}

    def _opened(self, model: str) -> PreTrainedModel:
        opened: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            self._folders[model == ARTIFACT], dtype=torch.float32
        )
        if model == "dense in bfloat16":
            for each in opened.parameters():
                each.data = each.data.bfloat16().float()
        return opened


@torch.inference_mode()
def _losses(model: PreTrainedModel, windows: EvaluationSet) -> list[float]:
    tokens_NT, spans = windows.windows, windows.spans
    each_NT = torch.nn.functional.cross_entropy(
        model(input_ids=tokens_NT).logits[:, :-1].transpose(1, 2).double(), tokens_NT[:, 1:], reduction="none"
    )
    if spans is None:
        return each_NT.mean(1).tolist()
    counted = sum(spans.counted) / len(spans.counted)
    pairs = zip(each_NT, spans.spans, strict=True)
    return [float(row_T[first - 1 : end - 1].sum()) / counted for row_T, (first, end) in pairs]


def perplexities(losses: dict[str, list[float]]) -> dict[str, float]:
    return {name: math.exp(sum(each) / len(each)) for name, each in losses.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_its_model_loads_and_runs_and_each_figure_is_that_of_the_model_it_names(
    kind: str, jobs: Queue, body: dict[str, Any], finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = finish(body | KINDS[kind])
    _check_artifact(jobs, job_id, is_quantised="quantization" in KINDS[kind]["output"])
    written = run_here(shown_ways(jobs, job_id)[0], artifact(jobs, job_id), tmp_path, monkeypatch)
    assert len(written.split()) > 3, written
    job, report, apart = jobs.job(job_id), jobs.report(job_id), Apart(jobs, job_id)
    losses = {model: apart.losses(model) for model in ("dense in float32", "dense in bfloat16", ARTIFACT)}
    means = {model: perplexities(each) for model, each in losses.items()}
    dense, artifact_s = means["dense in float32"], means[ARTIFACT]
    assert all(abs(dense[name] / artifact_s[name] - 1) > 1e-6 for name in TEXTS), "the models can be told apart"
    close = {"rel": 2e-3} if "quantization" in KINDS[kind]["output"] else SAME  # codes are computed with in their dtype

    metrics, card = job.measured, (artifact(jobs, job_id) / "README.md").read_text()
    for name, figure in metrics.perplexity.items():
        assert figure.dense == pytest.approx(dense[name], **SAME)
        assert figure.pruned == pytest.approx(artifact_s[name], **close)
        assert f"| {figure.dense:.3f} | {figure.pruned:.3f} (× {figure.ratio:.3f}" in card
    for figure in report["dense"]["figures"]:
        assert figure["values"]["perplexity"] == pytest.approx(dense[figure["name"]], **SAME)
        assert figure["window_losses"] == pytest.approx(losses["dense in float32"][figure["name"]], **SAME)
    for model, by_text in report["window_losses"].items():
        near = {"rel": 0.02} if model.endswith(".gguf") else close if model == ARTIFACT else SAME
        of = losses[ARTIFACT if model.endswith(".gguf") else model]
        for name, each in by_text.items():
            assert each["losses"] == pytest.approx(of[name], **near), model
    rounded = means["dense in bfloat16"]
    for name, each in report.get("rounding", {}).get("perplexity", {}).items():
        assert each["dense"] == pytest.approx(dense[name], **SAME)
        assert each["rounded"] == pytest.approx(rounded[name], **SAME), "the dense model, rounded"
        assert f"× {each['ratio']:.5g} on {name}" in card
    assert ("rounding" in report) == (KINDS[kind]["output"].get("dtype") == "bfloat16")
    for name, compared in metrics.equal_bytes.items():
        bits = metrics.perplexity[name].bits_per_byte
        if compared.dense in means and compared.file == ARTIFACT and bits is not None and bits.tokens and bits.bytes:
            per_byte = bits.tokens / (bits.bytes * math.log(2))
            nats = math.log(artifact_s[name] / means[compared.dense][name])
            assert compared.difference == pytest.approx(nats * per_byte, abs=1e-2 if close != SAME else 1e-4)
    _check_copies(metrics, dense, {"dense in bfloat16": rounded})


def _check_artifact(jobs: Queue, job_id: str, *, is_quantised: bool) -> None:
    """Check that it loads with nothing missing, and that what is left in it is as the figures count it."""
    measured, verification = jobs.job(job_id).measured, jobs.report(job_id)["verification"]
    assert verification["maximum_difference"] <= verification["tolerance"]
    model, loading = AutoModelForCausalLM.from_pretrained(
        artifact(jobs, job_id), output_loading_info=True, trust_remote_code=True
    )
    assert not any(loading.values()) and measured.parameters is not None
    if not is_quantised:
        assert measured.parameters.nonzero == sum(int(each.count_nonzero()) for each in model.parameters())


def _check_copies(metrics: Metrics, dense: dict[str, float], copies: dict[str, dict[str, float]]) -> None:
    """Check the alternatives that have figures of quality: the worst text's, of the dense model in that form."""
    for each in metrics.alternatives:
        if each.perplexity_ratio is not None:
            near = {"rel": 2e-3} if each.name == "dense in int8" else SAME
            copy = copies[each.name]
            assert each.perplexity_ratio == pytest.approx(max(copy[name] / dense[name] for name in TEXTS), **near)
            bits = max(math.log(copy[name]) / math.log(dense[name]) for name in TEXTS)
            assert each.bits_per_byte_ratio == pytest.approx(bits, **near)
            assert each.name != "dense in bfloat16" or each.bits_per_byte_ratio == pytest.approx(1, abs=1e-3)


def newest(jobs: Queue, job_id: str) -> dict[str, EqualBytes]:
    """The comparisons of a job with what was measured since it ended."""
    with transaction(jobs.sessions) as session:
        return job_with_measured(session, jobs.team, jobs.job(job_id)).measured.equal_bytes


def test_a_pruned_model_is_worse_than_a_dense_file_of_fewer_bytes_once_that_was_measured(
    jobs: Queue, body: dict[str, Any], finish: Finish, work: Work
) -> None:
    evaluation = body["evaluation"] | {"samples": 24}  # windows on which no other file was measured
    body = body | {"method": "magnitude", "sparsity": 0.8, "evaluation": evaluation, "output": {"format": "packed"}}
    first = finish(body)
    before = jobs.job(first).measured.equal_bytes
    assert before.keys() == TEXTS.keys() and all(each.outcome is None for each in before.values())
    assert "no dense file of at most" in (before["lines"].reason or "")
    assert "At equal bytes: on lines unknown" in (artifact(jobs, first) / "README.md").read_text()
    measure = before["lines"].measure
    assert measure is not None and measure["output"] == {"exports": [{"format": "gguf", "types": ["Q8_0", "Q4_K_M"]}]}

    stored = finish(measure)
    losses = jobs.report(stored)["window_losses"]
    assert losses.keys() == {"artifact", "model-Q8_0.gguf", "model-Q4_K_M.gguf"}
    in_llama_cpp, in_torch = (losses[file]["lines"]["losses"] for file in ("model-Q8_0.gguf", "artifact"))
    assert in_llama_cpp == pytest.approx(in_torch, abs=0.02) and in_llama_cpp != in_torch
    for each in newest(jobs, first).values():
        assert each.outcome == "worse" and each.basis == f"measured by {stored}" and each.windows == 24
        assert each.dense_bytes is not None and each.bytes is not None and each.dense_bytes <= each.bytes
        assert each.difference is not None and each.stderr is not None and each.difference > 3 * each.stderr > 0

    second = jobs.submit(body | {"gates": {"beats_dense_at_equal_bytes": True}})
    assert work().result(120) == "failed"
    job, report = jobs.job(second), jobs.report(second)
    assert job.error is not None and job.error.param == "gates.beats_dense_at_equal_bytes"
    assert all(not row["kept"] and 0 < row["limit"] < row["figure"] for row in report["gates"]["rows"])
    assert job.measured.equal_bytes == newest(jobs, first)
    assert report["equal_bytes"]["lines"]["outcome"] == "worse"
    assert job.verdict is not None and "worse than the dense model as gguf" in job.verdict.words
    assert "worse than the dense model as gguf" in (artifact(jobs, second) / "README.md").read_text()


def test_without_the_tokens_that_a_text_does_not_use_it_is_read_and_predicted_as_before(
    jobs: Queue, body: dict[str, Any], finish: Finish
) -> None:
    text = (jobs.settings.datasets_root / "lines.txt").read_text()[:800]
    (few := jobs.settings.datasets_root / "few.txt").write_text(text)
    give_text(jobs, "few", few)
    calibration = {"dataset": "few", "samples": 2, "sequence_length": 32}
    job_id = finish(body | {"method": "vocabulary", "calibration": calibration, "parameters": {"round_to": 8}})
    job, report, folder = jobs.job(job_id), jobs.report(job_id), artifact(jobs, job_id)
    folders = jobs.settings.models_root / "trained", folder
    before, after = (AutoTokenizer.from_pretrained(each) for each in folders)
    dense, pruned = (AutoModelForCausalLM.from_pretrained(each) for each in folders)
    vocabulary, metrics = report["vocabulary"], job.metrics
    kept, gone = vocabulary["kept"], len(before) - vocabulary["kept"]
    assert kept % 8 == 0 and gone > 0 and len(after) == kept == pruned.config.vocab_size
    assert metrics is not None and metrics["vocabulary"] == {"dense": len(before), "pruned": kept}
    removed = metrics["parameters"]["dense"] - metrics["parameters"]["nonzero"]
    assert removed == gone * dense.config.hidden_size == vocabulary["parameters"]
    assert "<svg" in (folder / "vocabulary.svg").read_text() and "Vocabulary: " in (folder / "README.md").read_text()
    old, new = (each(text, return_tensors="pt")["input_ids"][:, :64] for each in (before, after))
    places = before.convert_tokens_to_ids(after.convert_ids_to_tokens(range(kept)))
    assert old.tolist() == [[places[each] for each in new[0].tolist()]]
    with torch.inference_mode():
        assert torch.allclose(dense(old).logits[..., places], pruned(new).logits, atol=1e-4)


def test_a_vocabulary_that_cannot_be_as_small_is_refused_at_submit_or_by_the_runner(
    jobs: Queue, body: dict[str, Any], work: Work
) -> None:
    asked = body | CALIBRATED | {"method": "vocabulary"}
    for changes, words in (
        ({"parameters": {"tokens": 100_000}}, "parameters.tokens: 500 tokens would stay, and the model has 500"),
        ({"parameters": {"tokens": 300}, "sparsity": 0.05}, "both say how much goes"),
        ({"calibration": None}, "calibration is required: tokens are counted on text"),
    ):
        with pytest.raises(ApiError, match=words):
            jobs.submit(asked | changes)
    job_id = jobs.submit(asked | {"parameters": {"tokens": 64}})
    assert work().result(60) == "failed"
    error = jobs.job(job_id).error
    assert error is not None and "must stay" in error.message
    assert (error.code, error.param) == ("invalid_request", "parameters.tokens")

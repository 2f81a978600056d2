"""Claims 7 to 10, tried on the sample language model: each is a function named as the claim."""

import copy
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from bench.claims.data import fashion_mnist
from bench.claims.networks import LENET_5, RETRAINING_RATE, VGG, layers, outcome, prune, pruned, train, trained
from bench.claims.record import Record, knee
from bench.sources import RECALL, LanguageFiles, judge_folder
from core.engine.datasets.image_set import draw_images
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows
from core.engine.evaluation.zero_shot import measure_tasks
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.plan import LayerwisePlan
from core.engine.pruning.results import PruneResult
from core.engine.quantization.roundings import GPTQ
from core.engine.removals.runs import LANGUAGE_RUNS
from core.pipeline.plans import make_plan, walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.settings import Settings

SOURCE_FILES = ("argparse", "dataclasses", "inspect", "pickle", "tarfile", "typing")
"""Modules of Python's standard library whose source is the text outside the domain."""


@dataclass(frozen=True)
class Language:
    """The opened model and its windows of tokens [windows, length]: those it is calibrated on, drawn by the seed, and
    others of Wikipedia and of source code.
    """

    folder: ModelFolder
    calibration: Tensor
    in_domain: Tensor
    out_of_domain: Tensor
    questions: Path

    @classmethod
    def opened(cls, seed: int, *, samples: int, length: int, windows: int) -> "Language":
        """From this service's home, as `sources.fetch_language_files` left it."""
        files = LanguageFiles.of(Settings())
        folder = open_model(files.model)
        tokenizer = folder.tokenizer()
        library = Path(sysconfig.get_path("stdlib"))
        sources = [(library / f"{name}.py").read_text() for name in SOURCE_FILES]
        return cls(
            folder,
            calibration_windows(
                read_documents(files.calibration, "jsonl"),
                tokenizer,
                samples=samples,
                length=length,
                seed=seed,
                name=files.calibration.name,
            ),
            evaluation_windows(
                read_documents(files.evaluation, "jsonl"),
                tokenizer,
                samples=windows,
                length=length,
                name=files.evaluation.name,
            ),
            evaluation_windows(sources, tokenizer, samples=windows, length=length, name="the standard library"),
            files.questions,
        )

    @property
    def prunable_share(self) -> float:
        """Of the model's parameters, those of the decoder's linear layers."""
        description = self.folder.description
        return description.prunable_parameters / description.parameters

    @contextmanager
    def pruned(
        self,
        method: str,
        sparsity: float,
        pattern: str = "unstructured",
        *,
        evaluations: Mapping[str, Tensor],
        **parameters: Any,
    ) -> Iterator["Pruned"]:
        """The model pruned by one of the service's methods; its tensors are there until the context ends."""
        request = resolve_request(self.folder.description, UnresolvedRequest(method, pattern, sparsity, parameters))
        with tempfile.TemporaryDirectory(prefix="claims-") as place:
            walk = walk_for(
                self.folder,
                request,
                device=torch.device("cpu"),
                calibration=self.calibration,
                evaluations=dict(evaluations),
                work=Path(place),
            )
            begun = time.perf_counter()
            result = walk.run()
            yield Pruned(self, result, time.perf_counter() - begun, Path(place))


@dataclass(frozen=True)
class Pruned:
    """What a walk left, and the seconds it took."""

    language: Language
    result: PruneResult
    seconds: float
    place: Path

    def perplexity(self, name: str) -> float:
        """On one of the evaluations."""
        return self.result.perplexity[name].pruned

    def recall(self, questions: int) -> tuple[float, float]:
        """Accuracy on the recall task and its standard error."""
        folder = self.place / "artifact"
        write_checkpoint(self.result.files, self.result.unchanged, self.language.folder.path, folder)
        answer = recall(open_model(folder), self.language.questions, questions, self.place)
        shutil.rmtree(folder)
        return answer


def recall(folder: ModelFolder, file: Path, questions: int, work: Path) -> tuple[float, float]:
    """A model's accuracy on the first questions of the recall task, and its standard error."""
    found = measure_tasks(
        folder, {RECALL: file}, limit=questions, work=work, device=torch.device("cpu"), on_progress=lambda done: None
    )[RECALL]
    metric = TASKS[RECALL].metric
    return found[metric], found[f"{metric}_stderr"]


FIRST = "network.body.0"
_PATTERNS = {0.25: "3:4", 0.5: "2:4", 0.75: "1:4"}


def granularity(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 7: single weights, n:m, and filters of the network or heads and channels of the language model."""
    _network_grain(seed, setting, record)
    _language_grain(seed, setting, record)


def _network_grain(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = fashion_mnist()
    dense = trained(VGG, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    for share in setting["shares"]:
        for line in ("weights", "n:m", "filters"):
            model = copy.deepcopy(dense)
            before = model.num_parameters()
            later = [layer for layer in layers(model) if layer.name != FIRST]
            if line == "weights":
                prune(model, "magnitude", share, among=later, scope="tensor")
            elif line == "n:m":
                prune(model, "magnitude", share, pattern=_PATTERNS[share], among=later)
            else:
                prune(model, "filter-l1", share, data.train, pattern="structured", retrain_steps=0)
                record.fact(f"parameters removed as filters, {share:.0%} asked", 1 - model.num_parameters() / before)
            train(model, data.train, setting["retrain_steps"], RETRAINING_RATE, seed=seed)
            record.point("error", line, share, outcome(model, data.test).error)


def _language_grain(seed: int, setting: dict[str, Any], record: Record) -> None:
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    for share in setting["language_shares"]:
        requests: dict[str, tuple[str, float, str]] = {
            "weights": ("wanda", share, "unstructured"),
            "n:m": ("wanda", share, _PATTERNS[share]),
            "heads and channels": ("llm-pruner", share * language.prunable_share, "structured"),
        }
        for line, request in requests.items():
            with language.pruned(*request, evaluations={"text": language.in_domain}) as pruned:
                record.point("perplexity", line, share, pruned.perplexity("text"))
                record.fact("SmolLM2: dense perplexity", pruned.result.perplexity["text"].dense)


_TRAINING_IMAGES = 10_000
_DOMAINS = {"in domain": "in-domain perplexity", "out of domain": "out-of-domain perplexity"}


def generalisation(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 8: the gap between test and training against sparsity, and the language model in and out of its domain."""
    _network_gap(seed, setting, record)
    _language_gap(seed, setting, record)


def _network_gap(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = fashion_mnist()
    known = draw_images(data.train, _TRAINING_IMAGES, seed=0)
    dense = trained(LENET_5, data.train, seed)
    control = copy.deepcopy(dense)
    train(control, data.train, setting["rounds"] * setting["retrain_steps"], RETRAINING_RATE, seed=seed)
    test, training = outcome(control, data.test).error, outcome(control, known).error
    record.fact("dense error, trained as long", test)
    record.fact("dense gap, trained as long", test - training)
    record.fact("dense error", outcome(dense, data.test).error)
    for sparsity in setting["sparsities"]:
        model, _ = pruned(
            dense,
            "iterative-magnitude",
            sparsity,
            data.train,
            rounds=setting["rounds"],
            retrain_steps=setting["retrain_steps"],
            learning_rate=RETRAINING_RATE,
            batch_size=64,
            seed=seed,
        )
        after, seen = outcome(model, data.test).error, outcome(model, known).error
        record.point("error", "test", sparsity, after)
        record.point("error", "training", sparsity, seen)
        record.point("gap", "pruned", sparsity, after - seen)
    record.fact("knee of test error", knee(record.points("error", "test"), test + setting["tolerated_points"]))


def _language_gap(seed: int, setting: dict[str, Any], record: Record) -> None:
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    evaluations = {"in domain": language.in_domain, "out of domain": language.out_of_domain}
    with tempfile.TemporaryDirectory() as place:
        right, error = recall(language.folder, language.questions, setting["questions"], Path(place))
    record.point("recall", "ARC-Easy", 0.0, right)
    for sparsity in setting["language_sparsities"]:
        with language.pruned("wanda", sparsity, evaluations=evaluations) as pruned_model:
            for name, pair in pruned_model.result.perplexity.items():
                if sparsity == setting["language_sparsities"][0]:
                    record.point("perplexity", name, 0.0, pair.dense)
                record.point("perplexity", name, sparsity, pair.pruned)
            record.point("recall", "ARC-Easy", sparsity, pruned_model.recall(setting["questions"])[0])
    for name, fact in _DOMAINS.items():
        points = record.points("perplexity", name)
        record.fact(f"knee of {fact}", knee(points, setting["tolerated_ratio"] * points[0][1]))
    wrong = [(x, 1 - y) for x, y in record.points("recall", "ARC-Easy")]
    record.fact("knee of recall", knee(wrong, 1 - right + error))


def score_or_solve(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Each method twice: with an evaluation for its perplexity, and without for its seconds."""
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    sparsity = setting["sparsity"]
    place = f"{sparsity * 100:.0f} %"
    for method in ("wanda", "sparsegpt"):
        with language.pruned(method, sparsity, evaluations={"text": language.in_domain}) as pruned:
            record.point("perplexity", method, place, pruned.perplexity("text"))
            record.fact("dense perplexity", pruned.result.perplexity["text"].dense)
        with language.pruned(method, sparsity, evaluations={}) as pruned:
            record.point("seconds", method, place, pruned.seconds)


def sparse_and_few_bits(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Measurement of claim 10."""
    language = Language.opened(seed, samples=setting["samples"], length=setting["length"], windows=setting["windows"])
    language = replace(language, folder=open_model(judge_folder()))
    for line, (method, sparsity, bits) in setting["lines"].items():
        found = _perplexities(language, method, sparsity or None, GPTQ(bits, setting["group_size"], torch.bfloat16))
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
        walk = LANGUAGE_RUNS[request.pass_removal.id].walk(
            folder,
            replace(plan, rounding=rounding),
            device=device,
            calibration=language.calibration,
            evaluations=texts,
            work=Path(place),
        )
        return {name: (pair.dense, pair.pruned) for name, pair in walk.run().perplexity.items()}

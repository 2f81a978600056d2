"""Accuracy on tasks through lm-evaluation-harness, zero-shot or with examples, on questions in local files.

Prompts, scoring and standard errors are the harness's. Slow to import; needs no network.

An answer's score is its log-likelihood given the question. A question counts as correct where the right answer has the
highest score (`acc`), or the highest score divided by the answer's length (`acc_norm`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import torch
from lm_eval.api.model import CacheHook
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.counting import counted, counting
from core.device_kinds import device_kind
from core.engine.evaluation.zero_shot_tasks import TASKS, batch_size
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import load_model
from core.engine.models.micro_batches import AtOnce
from core.untrusted_json import JsonLimits, parse_json
from secateur_wire.errors import UnusableDataset

_HARNESS = Path(lm_eval.tasks.__file__).parent
_CONFIGS = {
    "boolq": "super_glue/boolq/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
}

_EXAMPLES_SEED = 1234
"""Seed by which the harness's own command draws examples."""


_QUESTION_LIMITS = JsonLimits(values=10_000, levels=16)


def measure_tasks(
    folder: ModelFolder,
    questions: Mapping[str, Path],
    *,
    limit: int | None,
    work: Path,
    device: torch.device,
    on_progress: Callable[[float], None],
    examples: int = 0,
) -> dict[str, dict[str, float]]:
    """Score the model of `folder` on the first `limit` questions of each task, each after so many solved `examples`.

    `questions` are JSON lines with the columns of the task's hub dataset; `on_progress` is called with 0 to 1. Returns
    for each task `samples`, the harness's `version` of it, `acc` and `acc_stderr`, and `acc_norm` and `acc_norm_stderr`
    where the harness has them. A standard error is the sample standard deviation divided by √samples. With examples
    there is `cut`: the number of answers that together with question and examples are longer than the context, and of
    which the beginning was not read.

    Raises UnusableDataset where a file does not fit the task, or has too few questions for the examples.
    """
    datasets.disable_progress_bars()
    lm = _Model(load_model(folder, device), folder.tokenizer())
    measured = {}
    for index, (name, file) in enumerate(counted(questions.items(), "asking zero-shot tasks")):
        lm.on_progress = _part(on_progress, index, len(questions))
        tasks = {name: open_task(name, file, work, examples)}
        lm.cut = 0
        results = evaluate(lm, {"tasks": tasks}, limit=limit, bootstrap_iters=1, log_samples=False)
        figures = {key.partition(",")[0]: value for key, value in results["results"][name].items() if "," in key}
        samples, version = results["n-samples"][name]["effective"], results["versions"][name]
        measured[name] = figures | {"samples": samples, "version": version} | ({"cut": lm.cut} if examples else {})
    return measured


def _part(on_progress: Callable[[float], None], index: int, of: int) -> Callable[[float], None]:
    return lambda done: on_progress((index + done) / of)


def open_task(name: str, file: Path, work: Path, examples: int = 0) -> Task:
    """Load the harness's own task with the questions of `file`; raises UnusableDataset where they do not fit.

    Before each question come so many `examples`, drawn by the harness from the others of `file`, by its default seed.
    The harness leaves out the question itself only where examples are drawn from a test split.
    """
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "include": str(_HARNESS / _CONFIGS[name]),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(file)}, "cache_dir": str(work / "cache")},
        "training_split": None,
        "validation_split": None if examples else "validation",
        "test_split": "validation" if examples else None,
        "num_fewshot": examples,
    }
    if examples:
        config["fewshot_split"] = "validation"
    (folder / f"{name}.yaml").write_text(json.dumps(config))  # JSON is YAML
    _check(name, file, examples)
    task: Task = TaskManager(include_path=folder, include_defaults=False).load(name)["tasks"][name]
    task.set_fewshot_seed(_EXAMPLES_SEED)
    return task


def _check(name: str, file: Path, examples: int) -> None:
    def refusal(what: str) -> UnusableDataset:
        return UnusableDataset(f"{file.name} does not hold the questions of {name}: {what}", param="evaluation.tasks")

    missing: set[str] = set()
    count = 0
    with file.open("rb") as lines:
        try:
            for line in lines:
                missing |= set(TASKS[name].columns) - set(parse_json(line, _QUESTION_LIMITS))
                count += 1
        except (ValueError, TypeError) as error:
            raise refusal(f"line {count + 1} is no JSON object") from error
    if missing:
        raise refusal(f"there is no {' and no '.join(sorted(missing))}")
    if count < 2:
        raise refusal("there are fewer than two")
    if count <= examples:
        raise refusal(f"there are {count}, and num_fewshot {examples} needs more than {examples}")


class _Model(HFLM):  # type: ignore[misc]  # the harness has no types
    """Adapter of a model for the harness, with batches that fit a budget of logits and with progress reports."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        # The token that begins a text. A tokenizer without BOS and EOS has no suitable one.
        begin = 0 if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None else None
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1, prefix_token_id=begin)
        self.on_progress: Callable[[float], None] = lambda done: None
        self.cut = 0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        longest = max((context + answer for context, answer in (request.args for request in requests)), key=len)
        tokens = min(len(self.tok_encode(longest)), self.max_length)
        vocabulary = self.config.get_text_config(decoder=True).vocab_size
        scores, cut = super().loglikelihood, self.cut

        def score(at_once: int) -> list[tuple[float, bool]]:
            self.batch_size_per_gpu, self.cut = at_once, cut
            with counting("scoring answers", len(requests)) as count:
                self.set_cache_hook(_Counter(len(requests), self.on_progress, count))
                answers: list[tuple[float, bool]] = scores(requests, disable_tqdm=disable_tqdm)
            return answers

        return AtOnce(batch_size(tokens, vocabulary, device_kind(self.device.type).logits_bytes)).run(score)

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
        self.cut += sum(len(context) + len(answer) > self.max_length + 1 for _, context, answer in requests)
        scored: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **options)
        return scored


class _Counter(CacheHook):  # type: ignore[misc]
    """Hook that counts answers and reports progress."""

    def __init__(self, total: int, on_progress: Callable[[float], None], count: Callable[[int], None]) -> None:
        super().__init__(None)
        self._total, self._done, self._on_progress, self._count = total, 0, on_progress, count

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        before, self._done = self._done, self._done + 1
        self._count(self._done)
        if 100 * before // self._total != 100 * self._done // self._total:
            self._on_progress(self._done / self._total)

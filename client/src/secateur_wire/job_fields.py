"""Fields of a job body as people fill them in, on the command line and in forms.

`GROUPS` is the one table of their groups, order, options and labels. Types, bounds, defaults and descriptions come from
the body's JSON schema: see `body_fields`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LEADING: Final[Mapping[str, str]] = {
    "calibration": "calibration.dataset",
    "evaluation.answers": "evaluation.answers.datasets",
    "recovery": "recovery.method",
    "output.quantization": "output.quantization.scheme",
}
"""Leading fields: without them the other fields of their part of the body have no effect."""


@dataclass(frozen=True)
class Entry:
    """Entry of the table for one field, given by its dotted path in the body.

    `option` is the option of `secateur submit`, with `metavar` for its value, and `help` where that differs from
    `hint`. An option for an object sets each of its members without an option of its own. In forms the field has a
    `label`, or else a name derived from the path, and a `hint`, or else the schema's description. `offers` names a list
    of values to choose from. `empty` is the meaning of an empty field; with `all`, it means no limit.

    `needs` is the field without which this one has no effect, where that is not the leading field of its part.
    `also` is another field that the option sets too. `is_of_text`: only language models have the field.
    """

    path: str
    option: str = ""
    metavar: str = ""
    help: str = ""
    label: str = ""
    hint: str = ""
    offers: str = ""
    empty: str = ""
    needs: str = ""
    also: str = ""
    is_of_text: bool = False

    @property
    def needed(self) -> str:
        """Return the field without which this one has no effect; "" without one."""
        leading = next((field for part, field in LEADING.items() if self.path.startswith(f"{part}.")), "")
        return self.needs or ("" if leading == self.path else leading)


GROUPS: Final[Mapping[str, tuple[Entry, ...]]] = {
    "model": (Entry("model", offers="models"),),
    "method": (
        Entry(
            "method",
            "--method",
            help="The pruning method; `secateur methods` lists them. Unset: frontier for a language model.",
        ),
    ),
    "target": (
        Entry(
            "sparsity",
            "--sparsity",
            hint="Share to remove, 0 to below 1: of the prunable weights, or with structured methods of all "
            "parameters. 0.5 is usual for zeros, 0.1 to 0.3 for structured methods.",
        ),
        Entry(
            "target",
            "--target",
            help="In place of --sparsity, an upper bound: parameters=1e8, bytes=2.5e8, latency_ratio=0.7, "
            "decode_ratio=0.7 or memory_bytes=3e8; and engine=llama-cpp where a ratio counts there.",
        ),
        Entry("target.parameters", label="Parameters, at most", hint="Parameters that remain, or that are not zero."),
        Entry(
            "target.bytes",
            label="Bytes, at most",
            hint="Bytes of the artifact. For zeros, also set output format packed.",
        ),
        Entry(
            "target.latency_ratio",
            label="Latency ratio, at most",
            hint="Pruned / dense time of reading a text, below 1; structured methods. The worker searches for the "
            "sparsity.",
        ),
        Entry(
            "target.decode_ratio",
            label="Decode ratio, at most",
            hint="Pruned / dense time of writing a token, below 1; structured methods.",
        ),
        Entry(
            "target.memory_bytes",
            label="Bytes of memory, at most",
            hint="Bytes of the tensors and of the cache of one sequence; frontier with pattern structured.",
        ),
        Entry(
            "target.engine",
            label="Engine of the ratio",
            hint="transformers, llama-cpp, openvino or onnxruntime: where the ratio counts. Only frontier with pattern "
            "structured chooses by another engine than transformers, and the output needs its files.",
            empty="transformers",
        ),
        Entry(
            "pattern",
            "--pattern",
            hint="unstructured: zeros anywhere. n:m, such as 2:4: n of every m neighbouring weights stay. "
            "structured: parts are removed. Unset: the method's first pattern.",
            offers="patterns",
        ),
        Entry("parameters", "--parameter", help="A parameter of the method; VALUE is JSON, or else text."),
    ),
    "calibration": (
        Entry(
            "calibration.dataset",
            "--calibration",
            "NAME",
            help="The text to calibrate on: a registered one, one of the hub, or self, which the model writes "
            "itself. For image classifiers a set of labelled images.",
            offers="datasets",
            empty="none",
        ),
        Entry(
            "calibration.samples",
            "--calibration-samples",
            hint="Number of sequences or images, or `all`.",
        ),
        Entry(
            "calibration.sequence_length",
            "--sequence-length",
            help="Tokens in a sequence, in calibration and evaluation.",
            is_of_text=True,
        ),
        Entry(
            "calibration.generated",
            "--calibration-generated",
            "N",
            label="Written by the model",
            hint="Number of sequences that the model writes itself, in addition to the dataset's.",
            is_of_text=True,
        ),
        Entry(
            "calibration.shape",
            "--calibration-shape",
            label="Shape of what the model writes",
            is_of_text=True,
        ),
        Entry("calibration.answers", "--calibration-answers", label="Whose answers", is_of_text=True),
        Entry(
            "calibration.counted_tokens",
            "--calibration-counted-tokens",
            label="Tokens of conversations that count",
            is_of_text=True,
        ),
        Entry(
            "calibration.seed",
            "--seed",
            help="Seed of everything random in the run.",
            hint="Seed of the random choices.",
            also="parameters.seed",
        ),
    ),
    "vocabulary": (
        Entry(
            "vocabulary",
            "--vocabulary",
            "NAME=VALUE",
            help="Also remove tokens from the vocabulary: tokens=auto, tokens=16384, datasets=[NAMES] and the like.",
        ),
        Entry(
            "vocabulary.tokens",
            label="Tokens that stay",
            hint="A number, or auto: all tokens that the texts use. Empty, without a share: the whole vocabulary.",
            is_of_text=True,
        ),
        Entry("vocabulary.amount", label="Share of tokens to remove", is_of_text=True),
        Entry("vocabulary.keep", label="Texts that stay as short", is_of_text=True),
        Entry("vocabulary.scripts", label="Scripts", is_of_text=True),
        Entry("vocabulary.round_to", label="Multiple of", is_of_text=True),
        Entry(
            "vocabulary.datasets",
            label="Further texts to count",
            hint="Texts whose tokens are counted, besides the calibration text.",
            offers="datasets",
            is_of_text=True,
        ),
    ),
    "evaluation": (
        Entry(
            "evaluation.datasets",
            "--evaluation",
            "NAME",
            help="A text to measure perplexity on, or a set of images to measure accuracy on.",
            hint="Measured before and after pruning: perplexity, or accuracy on images. Sets of the hub work too "
            "(wikitext, c4, org/name), and self.",
            offers="datasets",
        ),
        Entry(
            "evaluation.samples",
            "--evaluation-samples",
            label="Samples of each",
            hint="Windows of text, or images.",
            empty="all",
            needs="evaluation.datasets",
        ),
        Entry(
            "evaluation.sequence_length",
            "--sequence-length",
            needs="evaluation.datasets",
            is_of_text=True,
        ),
        Entry(
            "evaluation.shape",
            "--evaluation-shape",
            label="Shape of what the model writes",
            needs="evaluation.datasets",
            is_of_text=True,
        ),
        Entry(
            "evaluation.counted_tokens",
            "--counted-tokens",
            label="Tokens of conversations that count",
            needs="evaluation.datasets",
            is_of_text=True,
        ),
        Entry(
            "evaluation.tasks",
            "--task",
            "NAME",
            label="Zero-shot tasks",
            help="A zero-shot task to measure accuracy on.",
            hint="Accuracy on questions, before and after pruning. They take long on a CPU, so limit the questions.",
            offers="tasks",
            is_of_text=True,
        ),
        Entry(
            "evaluation.task_limit",
            "--task-limit",
            label="Questions of each task, at most",
            empty="all",
            needs="evaluation.tasks",
            is_of_text=True,
        ),
        Entry(
            "evaluation.num_fewshot",
            "--num-fewshot",
            "N",
            label="Solved examples before each question",
            needs="evaluation.tasks",
            is_of_text=True,
        ),
        Entry(
            "evaluation.prompts",
            "--prompt",
            "TEXT",
            hint="Texts that the dense and the pruned model continue; the report shows both.",
            is_of_text=True,
        ),
        Entry(
            "evaluation.prompt_tokens",
            "--prompt-tokens",
            "N",
            label="Tokens of each continuation",
            needs="evaluation.prompts",
            is_of_text=True,
        ),
        Entry(
            "evaluation.answers.datasets",
            "--answers",
            "NAME",
            label="Questions to answer",
            help="A set of questions that the dense and the pruned model answer; their answers are compared.",
            hint="Sets of conversations, prompts or texts. Both models answer their questions: how far the answers are "
            "apart, how long they are, and how many pass a check.",
            offers="datasets",
            is_of_text=True,
        ),
        Entry(
            "evaluation.answers.samples",
            "--answer-samples",
            label="Questions of each set",
            empty="all",
            is_of_text=True,
        ),
        Entry(
            "evaluation.answers.max_new_tokens",
            "--answer-tokens",
            "N",
            label="Tokens of each answer, at most",
            is_of_text=True,
        ),
        Entry("evaluation.answers.check", "--answer-check", "NAME", label="Check of answers", is_of_text=True),
    ),
    "recovery": (
        Entry(
            "recovery.method",
            "--recovery",
            "METHOD",
            label="Recovery",
            help="Train after pruning and keep the zeros: lora (adapters), for example, or distill (towards the "
            "dense model).",
            empty="none",
        ),
        Entry("recovery.dataset", "--recovery-dataset", "NAME", offers="datasets"),
        Entry("recovery.minutes", hint="Largest number of minutes of training."),
        Entry("recovery.steps", "--recovery-steps"),
        Entry("recovery.learning_rate"),
        Entry(
            "recovery",
            "--recovery-parameter",
            help='Any other field of the recovery. VALUE is JSON, or else text: learning_rate=1e-4, lora={"r": 16}.',
        ),
    ),
    "gates": (
        Entry("gates.max_perplexity_ratio", "--max-perplexity-ratio", label="Perplexity, pruned / dense, at most"),
        Entry(
            "gates.max_bits_per_byte_ratio", "--max-bits-per-byte-ratio", label="Bits per byte, pruned / dense, at most"
        ),
        Entry("gates.max_accuracy_drop", "--max-accuracy-drop", label="Fall in accuracy, at most"),
        Entry("gates.max_task_accuracy_drop", "--max-task-accuracy-drop", label="Fall in accuracy on tasks, at most"),
        Entry("gates.max_answer_kl", "--max-answer-kl", label="KL divergence of answers, at most"),
        Entry(
            "gates.max_length_ratio",
            "--max-length-ratio",
            label="Factor between lengths of answers, at most",
            hint="1.25 allows answers of 0.8 to 1.25 times the dense model's length.",
        ),
        Entry(
            "gates.max_latency_ratio",
            "--max-latency-ratio",
            label="Time, pruned / dense, at most",
            hint="Largest pruned / dense time. The gate passes only if the noise of the timings, at least 5 %, fits "
            "too.",
        ),
        Entry("gates.max_bytes", "--max-bytes", label="Bytes of weights, at most"),
        Entry("gates.max_bytes_ratio", "--max-bytes-ratio", label="Bytes, stored / dense, at most"),
        Entry("gates.max_parameters", "--max-parameters", label="Parameters not zero, at most"),
        Entry("gates.max_export_kl", "--max-export-kl", label="KL divergence of added files, at most"),
        Entry(
            "gates.beats_dense_at_equal_bytes",
            "--beats-dense-at-equal-bytes",
            label="No worse than a dense file of no more bytes",
            is_of_text=True,
        ),
    ),
    "output": (
        Entry(
            "output.format",
            "--format",
            "FORM",
            help="Form of the weights: packed, for example, stores which weights are not zero and their values. "
            "`download --unpack` restores plain weights.",
        ),
        Entry("output.dtype", "--dtype", label="Dtype of the weights", is_of_text=True),
        Entry(
            "output.quantization.scheme",
            "--quantization",
            label="Quantisation",
            hint="Stores the linear layers in 8 or 4 bits. All figures are of the quantised model.",
            empty="none",
            is_of_text=True,
        ),
        Entry("output.quantization.group_size", "--group-size", label="Inputs that share a scale", is_of_text=True),
        Entry("output.quantization.rounding", "--rounding", label="Rounding", is_of_text=True),
        Entry("output.layout", "--layout"),
        Entry("output.compression"),
        Entry(
            "output.exports",
            "--export",
            label="Added files",
            help="Files to add, each run in its own runtime before the job ends: gguf:F16,Q8_0 for llama.cpp.",
            hint="Each is run in its own runtime before the job ends: gguf is for llama.cpp.",
            offers="exports",
        ),
        Entry(
            "output.importance_matrix",
            "--importance-matrix",
            label="Importance matrix for GGUF types below 8 bits",
            hint="Rounds by how large each input is on the calibration text.",
            is_of_text=True,
        ),
    ),
    "running": (
        Entry("queue", "--queue", hint="Queue whose workers run the job."),
        Entry("priority", "--priority"),
        Entry("time_limit_seconds", "--time-limit", "SECONDS", label="Time limit, seconds"),
        Entry("metadata", "--metadata", label="Labels", hint="Labels to find the job by."),
    ),
}
"""Fields by group, in the order in which users fill them in."""

ENTRIES: Final[Mapping[str, Entry]] = {entry.path: entry for entries in GROUPS.values() for entry in entries}
"""Entries by path."""

"""The model card of an artifact: what was cut, what it cost, how to load it, and the recipe that reproduces it."""

import json
from typing import Any

from core.catalogue.methods import get_method


def model_card(recipe: dict[str, Any], report: dict[str, Any]) -> str:
    """README.md of an artifact, from its recipe and report; figures that were not measured are left out."""
    metrics = report["metrics"]
    method = get_method(recipe["method"])
    pattern = recipe["pattern"]
    recovery = report.get("recovery")
    trust = ", trust_remote_code=True" if report.get("verification", {}).get("trust_remote_code") else ""
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"tags: [pruning, {method.id}]",
        "---",
        "",
        f"# {plain(recipe['model'])}, {f'pruned with {method.title}' if method.prunes else 'trained further'}",
        "",
        _what_went(metrics["sparsity"], pattern if method.prunes else None),
        "",
        *(_recovery_lines(recovery) if recovery else []),
        *(["| | dense | pruned |"] if method.prunes else ["| | given | trained |"]),
        "|---|---|---|",
    ]
    for name, figures in metrics["perplexity"].items():
        lines.append(
            f"| perplexity, {plain(name)}, {figures['sequence_length']}-token windows "
            f"| {figures['dense']:.3f} | {figures['pruned']:.3f} (× {figures['ratio']:.3f}"
            f"{_before(figures) if method.prunes else ''}) |"
        )
    lines += _tasks(metrics)
    lines.append(f"| parameters not zero | {metrics['parameters']['dense']:,} | {metrics['parameters']['nonzero']:,} |")
    lines.append(f"| bytes of weights | {metrics['bytes']['dense']:,} | {metrics['bytes']['artifact']:,} |")
    if "packed" in report:
        lines.append(f"| bytes of weight files, packed | | {report['packed']['bytes']:,} |")
    latency = metrics.get("latency")
    if latency:
        lines.append(
            f"| prefill of {latency['sequence_length']} tokens on {latency['device']} "
            f"| {latency['dense_ms']:.1f} ms | {latency['pruned_ms']:.1f} ms |"
        )
    lines += ["", *_target(metrics), *(f"- {plain(note)}" for note in report.get("notes", []))]
    if "packed" in report:
        lines += [
            "",
            "The weights are packed: `secateur download JOB --unpack` restores them bit by bit into a folder for:",
        ]
    lines += [
        "",
        "```python",
        "from transformers import AutoModelForCausalLM",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder"{trust})',
        "```",
        "",
    ]
    if method.paper is not None:
        paper = method.paper
        lines += [f"Method: {paper.authors}, *{paper.title}* ({paper.year}), {paper.url}", ""]
    lines += [
        "The job body that reproduces this run; `secateur.json` holds the whole report:",
        "",
        "```json",
        json.dumps(recipe, indent=2, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _tasks(metrics: dict[str, Any]) -> list[str]:
    """Zero-shot accuracy, each with its standard error, and the mean of all tasks."""
    lines = []
    for name, figures in metrics.get("tasks", {}).items():
        cells = (f"{figures[model]:.2%} ± {figures[f'{model}_stderr']:.2%}" for model in ("dense", "pruned"))
        what = f"{name} ({figures['metric']}, {figures['samples']:,} questions)"
        lines.append(f"| {plain(what)} | {' | '.join(cells)} |")
    if len(lines) > 1:
        average = metrics["task_mean"]
        lines.append(f"| mean of the {len(lines)} tasks | {average['dense']:.2%} | {average['pruned']:.2%} |")
    return lines


_TARGETS = {
    "parameters": ("at most {:,} parameters that are not zero", "{:,}"),
    "bytes": ("at most {:,} bytes of tensors", "{:,}"),
    "latency_ratio": ("a prefill in at most {:.3g} × the dense model's time", "{:.3g} ×"),
}


def _target(metrics: dict[str, Any]) -> list[str]:
    """What the job asked of the artifact, and what it has."""
    target = metrics.get("target")
    if target is None:
        return []
    asked, reached = _TARGETS[target["kind"]]
    spread = f", timings spread by {target['spread']:.1%}" if target["kind"] == "latency_ratio" else ""
    return [f"- Target: {asked.format(target['asked'])}; reached {reached.format(target['reached'])}{spread}."]


def _what_went(share: dict[str, float], pattern: str | None) -> str:
    if pattern == "structured":
        return f"{share['model']:.2%} of all parameters were removed, {share['prunable']:.2%} of those of its layers."
    kind = f" ({pattern})" if pattern else ""
    return f"{share['prunable']:.2%} of the prunable weights are zero{kind}, {share['model']:.2%} of all parameters."


def _recovery_lines(recovery: dict[str, Any]) -> list[str]:
    sparsity = recovery["sparsity"]
    texts = ", ".join(plain(text["name"]) for text in recovery["texts"])
    return [
        f"Recovered with {recovery['method']} ({recovery['trained']}, {recovery['trained_parameters']:,} parameters): "
        f"{recovery['steps']:,} steps, {recovery['tokens']:,} tokens of {texts}. Sparsity "
        f"{sparsity['before']:.4%} before, {sparsity['after']:.4%} after: every pruned weight is still zero.",
        "",
    ]


def _before(figures: dict[str, Any]) -> str:
    before = figures.get("before_recovery")
    return f"; {before:.3f} before recovery" if before is not None else ""


_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    return " ".join(text.split()).translate(_ESCAPES)

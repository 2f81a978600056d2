"""One page for each pruning method, from its description, its options, its docstrings and its measured figures."""

import ast
import json
from pathlib import Path
from typing import Any, Final, get_args

import core
from core.measurements.measurement import Measurement, Spread
from core.measurements.reader import Table, measurements
from core.methods.method_info import MethodInfo, Variant
from core.methods.registry import CLASSES, METHODS
from documentation.markdown import fields, table

_GROUPS: Final = ("Zeros", "Smaller language models", "Image classifiers", "Without pruning", "Baselines")
_CORE: Final = Path(core.__file__).parent
_FAMILIES: Final = {"language-model": "language models", "image-classification": "image classifiers"}
_READS: Final = {"norms": "the norms of each layer's inputs", "gram": "the products XᵀX of each layer's inputs"}
_STORES: Final = {"exports": [{"format": "gguf", "types": ["F16"]}]}


def groups() -> dict[str, list[MethodInfo]]:
    """Return the methods by what they are for."""
    grouped: dict[str, list[MethodInfo]] = {name: [] for name in _GROUPS}
    for method in METHODS.values():
        grouped[_group(method)].append(method)
    return grouped


def _group(method: MethodInfo) -> str:
    if method.is_baseline:
        return "Baselines"
    if not method.prunes:
        return "Without pruning"
    if "language-model" not in method.task_families:
        return "Image classifiers"
    return "Smaller language models" if method.shrinks else "Zeros"


def index() -> str:
    """Return the page that lists all methods."""
    parts = [
        "# Methods",
        "Every pruning method of this release. [Choose a method](../choose.md) says which one to take for what; "
        "`secateur methods ID` shows the same on the command line, and `GET /v1/methods` as JSON.",
    ]
    for name, group in groups().items():
        rows = [
            [
                f"[{each.title}]({each.id}.md)",
                f"`{each.id}`",
                each.summary,
                " and ".join(_FAMILIES[family] for family in each.task_families),
            ]
            for each in group
        ]
        parts.append(f"## {name}\n\n{table(['method', 'id', 'in one sentence', 'for'], rows)}")
    return "\n\n".join(parts) + "\n"


def page(method: MethodInfo) -> str:
    """Return a method's page: idea, formula, body, cost, figures, options, paper."""
    parts = [
        f"# {method.title}",
        method.summary,
        "\n".join(f"- **{name}**: {text}" for name, text in _facts(method)),
        _described("The idea", method),
        *(_described(f"With pattern {pattern}", each) for pattern, each in method.variants.items()),
        f"## The formula\n\n{_formula(method)}",
        f"## A body to copy\n\n{_bodies(method)}",
        _measured(method),
        f"## Options\n\n{_options(method)}",
        *(f"## Options with pattern {pattern}\n\n{_options(each)}" for pattern, each in method.variants.items()),
    ]
    if method.paper:
        paper = method.paper
        parts.append(f"## Paper\n\n{paper.authors} ({paper.year}). [{paper.title}]({paper.url}).")
    return "\n\n".join(filter(None, parts)) + "\n"


def bodies(method: MethodInfo) -> list[dict[str, Any]]:
    """Return job bodies to copy: one for each kind of model, and one for each pattern with options of its own.

    The names `my-model`, `my-mixture`, `my-text`, `my-classifier` and `my-images` stand for what the reader registered.
    """
    made = [_body(method, family, method.patterns[0] if method.patterns else None) for family in method.task_families]
    return made + [_body(method, method.task_families[0], pattern) for pattern in method.variants]


def _body(method: MethodInfo, family: str, pattern: str | None) -> dict[str, Any]:
    model, data = ("my-model", "my-text") if family == "language-model" else ("my-classifier", "my-images")
    if method.removes == "experts":
        model = "my-mixture"
    variant = method.variant(pattern)
    body: dict[str, Any] = {"model": model, "method": method.id}
    if pattern is not None:
        body |= {"pattern": pattern}
        if "tokens" not in variant.parameters.model_fields:
            body |= {"sparsity": 0.2 if variant.shrinks else 0.5}
    if method.measures:
        body |= {"parameters": {"method": "magnitude"}}
        body |= {"evaluation": {"datasets": [data]}} if family == "language-model" else {}
    if variant.needs.calibration or family != "language-model":
        body |= {"calibration": {"dataset": data}}
    if method.only_stores:
        body |= {"output": _STORES}
    elif not method.prunes and method.needs.training:
        trained = "lora" if family == "language-model" else "finetune"
        body |= {"recovery": {"method": trained, "dataset": data, "steps": 200}}
    return body


def _bodies(method: MethodInfo) -> str:
    blocks = [f"```json\n{json.dumps(each, indent=2)}\n```" for each in bodies(method)]
    return (
        "Send it to `POST /v1/jobs`, or paste it into the portal's *New job, everything*. Put the names of your model "
        "and your data in the place of `my-…`.\n\n" + "\n\n".join(blocks)
    )


def _facts(method: MethodInfo) -> list[list[str]]:
    needs = [
        *(["calibration data"] if method.needs.calibration else []),
        *(["gradients"] if method.needs.gradients else []),
        *(["training"] if method.needs.training else []),
    ]
    reads = _READS.get(method.reads)
    return [
        ["Id", f"`{method.id}`"],
        ["For", " and ".join(_FAMILIES[each] for each in method.task_families)],
        ["Patterns", ", ".join(f"`{each}`" for each in method.patterns) or "none: it removes nothing"],
        ["Needs", ", ".join(needs) or "neither data nor training"],
        *([["Gathers", f"{reads}, while calibration data runs through"]] if reads else []),
        *([["Baseline", "it chooses at random, to compare others with"]] if method.is_baseline else []),
    ]


def _described(heading: str, variant: Variant) -> str:
    return f"## {heading}\n\n{variant.description}\n\n**What you gain.** {variant.gains}"


def _formula(method: MethodInfo) -> str:
    """Return what the docstrings of the method's mathematics say: they are read without loading torch."""
    texts = []
    for place in CLASSES[method.id]:
        module, _, name = place.rpartition(".")
        tree = ast.parse(Path(_CORE, *module.split(".")[1:]).with_suffix(".py").read_text("utf-8"))
        users = {each for each, classes in CLASSES.items() for other in classes if other.rpartition(".")[0] == module}
        texts += [ast.get_docstring(tree)] if len(users) == 1 else []
        texts += [ast.get_docstring(each) for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name]
    return "\n\n".join(filter(None, texts)).replace("*", "\\*")


def _options(variant: Variant) -> str:
    schema = variant.parameters.model_json_schema()
    header = ["option", "values", "default", "what it does"]
    rows = fields(schema)
    if not rows:
        return "It has none."
    place = "They go into the body's `parameters`; on the command line, `--parameter NAME=VALUE`."
    parts = [place, table(header, rows)]
    for name, each in schema.get("$defs", {}).items():
        if "properties" in each:
            parts.append(f"**`{name}`**: {each.get('description', '')}\n\n{table(header, fields(each))}")
    return "\n\n".join(parts)


def _measured(method: MethodInfo) -> str:
    tables = [row for name in get_args(Table) for row in measurements(name)]
    rows = [each for each in tables if each.method == method.id]
    if not rows:
        return ""
    header = ["pattern", "removed", "options", "trained after", "perplexity in domain", "out of domain"]
    header += ["prefill time", "decode time", "minutes", "peak memory", "machine", "measured"]
    lines = [
        [
            each.pattern + (", layers differ" if each.layout == "per_layer" else ""),
            f"{each.sparsity:.1%}",
            f"`{json.dumps(each.parameters)}`" if each.parameters else "–",
            "yes" if each.recovery else "no",
            ratio(each.perplexity.get("in_domain")),
            ratio(each.perplexity.get("out_of_domain")),
            f"× {each.prefill.ratio:.2f}" if each.prefill else "–",
            f"× {each.decode.ratio:.2f}" if each.decode else "–",
            minutes(each),
            f"{each.peak_bytes / 2**30:.1f} GiB",
            each.machine,
            each.measured.isoformat(),
        ]
        for each in rows
    ]
    (model,) = {f"{each.model.name} ({each.model.parameters / 1e6:.0f} M parameters)" for each in rows}
    return (
        f"## Measured\n\nOn {model}. Perplexity and time are divided by the dense model's: 1 is as before, and a "
        "smaller model should be below 1 in time. *Removed* is the share of weights that became zero, or with pattern "
        "`structured` the share of parameters that went. The memory is that of the process that prunes.\n\n"
        f"{table(header, lines)}"
    )


def ratio(spread: Spread | None) -> str:
    """Return a perplexity ratio with its deviation over seeds."""
    if spread is None:
        return "–"
    return f"{spread.mean:.3g}" + (f" ± {spread.deviation:.2g}" if spread.deviation is not None else "")


def minutes(row: Measurement) -> str:
    """Return the minutes of a job's pruning."""
    return f"{row.seconds.mean / 60:.1f}"

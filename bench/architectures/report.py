"""The page's section of the matrix, and what is known of each type as data."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import transformers

from bench.architectures.outcomes import CAPABILITIES, STRUCTURED, Capability, Outcome, TypeOutcomes
from bench.page import table
from core.engine.architectures.description import DISCOVERY_VERSION

_HEADER = {"n:m": "N:M"} | {each: each.capitalize() for each in CAPABILITIES if each != "n:m"}
_UNSTRUCTURED_AIM, _STRUCTURED_AIM, _ROWS_AIM = 90, 75, 90


def page(found: Mapping[str, TypeOutcomes], types: Collection[str], facts: str) -> str:
    """Return the section: shares of what is offered, a table of all types, and the reasons it refers to."""
    reasons: dict[str, int] = {}
    rows = [_row(found[each], reasons) for each in types if each in found]
    listed = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n\n".join(
        [
            *_summary(found, types),
            table(["Type", *(_HEADER[each] for each in CAPABILITIES)], rows, text_columns=1 + len(CAPABILITIES)),
            "\n".join(listed),
            facts,
        ]
    )


def write_known_types(file: Path, found: Mapping[str, TypeOutcomes]) -> None:
    """Write what each type is offered, and why not the rest."""
    known = {
        "transformers": transformers.__version__,
        "discovery": DISCOVERY_VERSION,
        "types": {name: known_type(outcomes) for name, outcomes in sorted(found.items())},
    }
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def known_type(outcomes: TypeOutcomes) -> dict[str, object]:
    """Return what a type is offered, and why not the rest, by capability."""
    return {
        "offered": [each for each in CAPABILITIES if outcomes.cells[each].status == "yes"],
        "not_offered": {
            each: _reason(outcomes.model_type, outcomes.cells[each])
            for each in CAPABILITIES
            if outcomes.cells[each].status != "yes"
        },
    }


def _summary(found: Mapping[str, TypeOutcomes], types: Collection[str]) -> list[str]:
    experts = [each for each in found.values() if each.has_experts]
    others = [each for each in found.values() if not each.has_experts]
    unbuilt = [each for each in others if each.cells["opens"].status == "unbuilt"]
    states = [each for each in others if _is_refused(each, _STATES)]
    counted = [each for each in others if each not in unbuilt and each not in states]
    alone = [each for each in counted if not _is_refused(each, _COMBINED)]
    cells = [cell for each in found.values() for cell in each.cells.values()]
    wrong = sum(cell.status == "wrong" for cell in cells)
    tried = f"{len(found)} of the {len(types)}" if len(found) < len(types) else f"All {len(types)}"

    def row(title: str, aim: int, *kinds: Capability) -> list[str]:
        shares = [_share(group, lambda each: any(each.cells[kind].status == "yes" for kind in kinds)) for group in
                  (alone, counted)]  # fmt: skip
        return [title, *shares, f"{aim} %"]

    return [
        f"{tried} types of causal language models of transformers {transformers.__version__}. Not counted in the "
        f"shares: {len(experts)} with experts; {len(unbuilt)} that transformers does not build from their own config, "
        f"or run on tokens alone; {len(states)} refused by design, as their blocks hand each other more than hidden "
        "states.",
        table(
            ["Offered", "Types of language models alone", "With configs of more than that", "Aim"],
            [
                row("Unstructured", _UNSTRUCTURED_AIM, "unstructured"),
                row("Structured: channels or heads, per layer or not", _STRUCTURED_AIM, *STRUCTURED),
            ],
            text_columns=1,
        ),
        f"Of {len(experts)} types with experts, {_offering(experts, 'unstructured')} can lose weights inside their "
        f"experts, and {_offering(experts, 'experts')} can lose complete experts.",
        _rows_alone(found.values()),
        f"Of {len(cells)} cells of all types, **{wrong}** had wrong results.",
    ]


def _rows_alone(found: Collection[TypeOutcomes]) -> str:
    cut = [each for each in found if each.cells["rows"].status == "yes"]
    opening = sum(each.cells["opens"].status == "yes" for each in cut)
    inexact = [difference for each in cut if (difference := each.cells["rows"].difference)]
    nearly = f"; for the others they differ by at most {max(inexact):.2g}" if inexact else ""
    return (
        f"Rows of the vocabulary alone can be removed from {_share(found, lambda each: each in cut)} of all types "
        f"(aim: {_ROWS_AIM} %). {opening} of these types open, so jobs can remove these rows. When stock transformers "
        f"opens the result, the logits of the tokens that stay are bit for bit those of the dense model for "
        f"{len(cut) - len(inexact)} of these types{nearly}."
    )


_COMBINED = "describes more than a language model"
_STATES = "values from inside other blocks"


def _is_refused(outcomes: TypeOutcomes, reason: str) -> bool:
    opens = outcomes.cells["opens"]
    return opens.status == "refused" and reason in opens.reason


def _offering(group: Collection[TypeOutcomes], capability: Capability) -> int:
    return sum(each.cells[capability].status == "yes" for each in group)


def _share(group: Collection[TypeOutcomes], holds: Callable[[TypeOutcomes], bool]) -> str:
    count = sum(map(holds, group))
    return f"{count} of {len(group)}, {100 * count / max(len(group), 1):.1f} %"


def _row(outcomes: TypeOutcomes, reasons: dict[str, int]) -> list[str]:
    def cell(outcome: Outcome) -> str:
        if outcome.status == "yes":
            return "✓"
        number = reasons.setdefault(_reason(outcomes.model_type, outcome), len(reasons) + 1)
        return f"**wrong** {number}" if outcome.status == "wrong" else str(number)

    marks = "".join([" (listed)" if outcomes.listed else "", " (experts)" if outcomes.has_experts else ""])
    return [f"`{outcomes.model_type}`{marks}", *(cell(outcomes.cells[each]) for each in CAPABILITIES)]


def _reason(model_type: str, outcome: Outcome) -> str:
    """Return why a cell is not offered, without what differs where the reason is the same: names and differences."""
    text = outcome.reason
    for pattern, instead in _ALIKE:
        text = re.sub(pattern.replace("TYPE", re.escape(model_type.removesuffix("_text"))), instead, text)
    return text if outcome.status == "refused" else f"{outcome.stage}: {text}"


_ALIKE = (
    (r"^TYPE\w*: ", ""),
    (r"^(parameters\.attention|depth): ", ""),
    (r"^\w+ cannot lose (\w+): ", r"no \1: "),
    (r"; use .*$", ""),
    (r"(?<=not pruned yet): .*$", ""),
    (r"(?<=differ) by [-+.e0-9]+", ""),
    (r", [-+.e0-9]+ is allowed", ""),
    (r"[<>|]", " "),
    (r" for this kind of AutoModel.*$", ""),
)
"""Parts of a reason, and what stands for them."""

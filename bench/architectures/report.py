"""The page's section of the matrix, and what is known of each type as data."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import transformers

from bench.architectures.outcomes import CAPABILITIES, STRUCTURED, Outcome, TypeOutcomes
from bench.page import table
from core.engine.architectures.discovered import DISCOVERY_VERSION

_HEADER = {"n:m": "N:M"} | {each: each.capitalize() for each in CAPABILITIES if each != "n:m"}
_UNSTRUCTURED_AIM, _STRUCTURED_AIM = 90, 75


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
    cells = [cell for each in found.values() for cell in each.cells.values()]
    wrong = sum(cell.status == "wrong" for cell in cells)
    unbuilt = [each for each in found.values() if each.cells["opens"].status == "unbuilt"]
    experts = [each for each in found.values() if each.has_experts]
    combined = [each for each in found.values() if _is_refused(each, _COMBINED) and not each.has_experts]
    states = [each for each in found.values() if _is_refused(each, _BY_DESIGN) and not each.has_experts]
    aside = {each.model_type for group in (unbuilt, experts, combined, states) for each in group}
    rest = [each for each in found.values() if each.model_type not in aside]
    unstructured = _share(rest, lambda each: each.cells["unstructured"].status == "yes")
    structured = _share(rest, lambda each: any(each.cells[kind].status == "yes" for kind in STRUCTURED))
    tried = f"{len(found)} of the {len(types)}" if len(found) < len(types) else f"all {len(types)}"
    return [
        f"Tried: {tried} types of causal language models of transformers {transformers.__version__}. Set aside: "
        f"{len(experts)} with experts, {len(unbuilt)} that transformers does not build from their own config or run on "
        f"tokens alone, {len(combined)} whose config describes more than a language model, and {len(states)} refused "
        f"by design, whose blocks hand each other more than hidden states or quantise weights as they run.",
        table(
            ["Of the others", "Types", "Share", "Aim"],
            [
                ["Unstructured", *unstructured, f"{_UNSTRUCTURED_AIM} %"],
                ["Structured (channels or heads)", *structured, f"{_STRUCTURED_AIM} %"],
            ],
            text_columns=1,
        ),
        f"Wrong results, of {len(cells)} cells of all types: **{wrong}**.",
    ]


_COMBINED = ("describes more than a language model",)
_BY_DESIGN = ("made inside", "quantise")


def _is_refused(outcomes: TypeOutcomes, reasons: Collection[str]) -> bool:
    opens = outcomes.cells["opens"]
    return opens.status == "refused" and any(each in opens.reason for each in reasons)


def _share(group: Collection[TypeOutcomes], holds: Callable[[TypeOutcomes], bool]) -> tuple[str, str]:
    count = sum(map(holds, group))
    return f"{count} of {len(group)}", f"{100 * count / max(len(group), 1):.1f} %"


def _row(outcomes: TypeOutcomes, reasons: dict[str, int]) -> list[str]:
    def cell(outcome: Outcome) -> str:
        if outcome.status == "yes":
            return "✓"
        number = reasons.setdefault(_reason(outcomes.model_type, outcome), len(reasons) + 1)
        return f"**wrong** {number}" if outcome.status == "wrong" else str(number)

    marks = "".join([" (listed)" if outcomes.listed else "", " (experts)" if outcomes.has_experts else ""])
    return [f"`{outcomes.model_type}`{marks}", *(cell(outcomes.cells[each]) for each in CAPABILITIES)]


def _reason(model_type: str, outcome: Outcome) -> str:
    """Return why a cell is not offered, without the type's name in front and other than its numbers alike."""
    text = re.sub(rf"^{re.escape(model_type.removesuffix('_text'))}\w*: ", "", outcome.reason)
    text = re.sub(r"[<>|]", " ", text)
    return text if outcome.status == "refused" else f"{outcome.stage}: {text}"

"""Stand-in for a measurement of the costs of parts, of the model that tests register."""

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from core.engine.latency.costs import ModelWidths, PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.variants import BlockVariant
from core.pipeline.messages import PartCostsReport

WORK = {"engine": "llama-cpp", "type": "F16", "threads": 1, "prompt_tokens": 8, "context_tokens": 16}


def measured_report() -> PartCostsReport:
    """Return a report on the model of these tests."""
    costs = PassCosts(attention={1: 1.0, 2: 2.0}, ffn={3: 1.0, 12: 2.0, 24: 4.0}, vocabulary={64: 6.0}, rest=0.5)
    both = RoundCosts(prefill=costs, decode=costs)
    widths = ModelWidths(
        architecture="LlamaForCausalLM", hidden_size=16, head_size=8, heads_per_group=1, block=BlockVariant(2, 24),
        vocabulary=64, is_tied=False,
    )  # fmt: skip
    table = PartCosts(
        prefill=costs, decode=costs, rounds=[both] * 3, workload=Workload.model_validate(WORK), model=widths,
        machine="a processor", version="llama-cpp-py-sync 1", measured_on=date(2026, 12, 1), layers=2,
    )  # fmt: skip
    return PartCostsReport(costs=table)


def saying(place: Path, report: PartCostsReport) -> Sequence[str]:
    """Return the command of a child that answers so, whatever it is asked."""
    file = place / "answer.json"
    file.write_text(report.model_dump_json())
    return sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(file)

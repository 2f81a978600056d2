"""Tables of costs of parts that follow from known numbers."""

from datetime import date

import numpy as np

from core.engine.latency.costs import ModelWidths, PartCosts, PassCosts, RoundCosts, Workload
from core.engine.latency.design import timed_groups, timed_widths
from core.engine.latency.variants import BlockVariant

WIDTHS = ModelWidths(
    architecture="LlamaForCausalLM",
    hidden_size=576,
    head_size=64,
    heads_per_group=3,
    block=BlockVariant(3, 1536),
    vocabulary=49152,
    is_tied=True,
)
WORKLOAD = Workload(engine="llama-cpp", type="Q8_0", threads=2)


def pass_costs(attention: list[float], ffn: list[float], vocabulary: float, rest: float) -> PassCosts:
    """Return costs at the sizes that are timed of `WIDTHS`: a constant, and what each line adds to it at its end."""

    def on_lines(sizes: list[int], numbers: list[float]) -> dict[int, float]:
        return {size: float(np.interp(size, [0, *sizes[1:]], np.cumsum(numbers))) for size in sizes}

    return PassCosts(
        attention=on_lines([*timed_groups(3), 3], attention),
        ffn=on_lines([*timed_widths(1536), 1536], ffn),
        vocabulary={WIDTHS.vocabulary: vocabulary},
        rest=rest,
    )


def part_costs(costs: RoundCosts, rounds: list[RoundCosts]) -> PartCosts:
    return PartCosts(
        prefill=costs.prefill,
        decode=costs.decode,
        rounds=rounds,
        workload=WORKLOAD,
        model=WIDTHS,
        machine="a processor, 2 processors",
        version="llama-cpp-py-sync 1",
        measured_on=date(2026, 12, 1),
        layers=8,
    )

"""Tables of costs of parts that follow from known numbers."""

from datetime import date

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
    """Return costs at the sizes that are timed of `WIDTHS`; each number adds to the cost of the size below."""
    groups, widths = [*timed_groups(3), 3], [*timed_widths(1536), 1536]
    return PassCosts(
        attention={size: sum(attention[: place + 1]) for place, size in enumerate(groups)},
        ffn={size: sum(ffn[: place + 1]) for place, size in enumerate(widths)},
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

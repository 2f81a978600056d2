"""Quality against cost as pages show it: in words, and as a chart with the Pareto front."""

from typing import Final

from core.service.jobs.trade_off import Cost, TradeOff

COSTS: Final[dict[Cost, str]] = {
    "parameters": "parameters that are not zero",
    "bytes": "bytes of weights",
    "latency": "latency of a forward, ms",
}
_LOG_FROM = 20
"""Perplexities of which one is so many times another are drawn on a logarithmic axis."""


def quality_in_words(quality: str) -> str:
    """Spell out a quality: `perplexity:articles` as "perplexity on articles"."""
    kind, _, name = quality.partition(":")
    return f"{kind}, mean of the tasks" if name == "task_mean" else f"{kind} on {name}"


def draw_trade_off(trade_off: TradeOff) -> str:
    """Draw the trade-off as an SVG."""
    from core.pipeline.reports.charts import Spot, trade_off_chart  # takes long to load, and is for charts alone

    spots = [
        Spot(each.label, each.cost, each.quality, on_front=each.beaten_by is None, is_reference=each.job is None)
        for each in trade_off.points
    ]
    qualities = [each.quality for each in trade_off.points]
    words = quality_in_words(trade_off.quality) if trade_off.quality else "quality"
    is_log = words.startswith("perplexity") and bool(qualities) and max(qualities) > _LOG_FROM * min(qualities)
    better = "lower is better" if words.startswith("perplexity") else "higher is better"
    return trade_off_chart(
        spots,
        title=f"{words[0].upper()}{words[1:]} against {COSTS[trade_off.cost]}",
        x_label=COSTS[trade_off.cost],
        y_label=f"{words} ({better})",
        y_is_log=is_log,
    )

"""Picture of a vocabulary: how much of the texts each number of tokens covers."""

from matplotlib.ticker import FuncFormatter, PercentFormatter

from core.pipeline.reports.drawing import COLOURS, as_svg, dress, open_figure
from secateur_wire.reports import VocabularyReport


def vocabulary_chart(vocabulary: VocabularyReport, *, title: str) -> str:
    """Draw the share of the texts' tokens over the number of kept tokens, with the chosen number, as SVG."""
    with open_figure((8.0, 3.0)) as figure:
        axes = figure.subplots()
        points = vocabulary.coverage
        axes.plot([each.tokens for each in points], [each.share for each in points], color=COLOURS[0])
        axes.plot([vocabulary.kept], [vocabulary.covered], "o", color=COLOURS[1])
        axes.annotate(
            f"{vocabulary.kept:,} kept: {vocabulary.covered:.2%}",
            (vocabulary.kept, vocabulary.covered),
            textcoords="offset points",
            xytext=(8, -14),
        )
        axes.axvline(vocabulary.used, color=COLOURS[2], linewidth=0.8, linestyle="--", label="tokens of the texts")
        dress(axes, title, "tokens in the vocabulary", "share of the texts' tokens")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.legend(frameon=False, loc="lower right", fontsize=8)
        return as_svg(figure, title)

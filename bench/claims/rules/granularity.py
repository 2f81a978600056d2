"""Claim 7."""

from bench.claims.claim import Claim, Panel, Part, Run

HIGHEST = 0.75


def _stand_in_order(run: Run, panel: str, lines: tuple[str, str, str], x: float) -> bool:
    finest, middle, coarsest = (run.value(panel, line, x) for line in lines)
    return finest <= middle <= coarsest and finest < coarsest


CLAIM = Claim(
    name="granularity",
    title="Single weights survive higher rates than filters at equal parameters, n:m lies between",
    papers=(
        "Mao et al.: Exploring the Regularity of Sparse Structure in Convolutional Neural Networks (2017)",
        "Sun et al.: A Simple and Effective Pruning Approach for Large Language Models (2023)",
        "Ma et al.: LLM-Pruner (2023)",
    ),
    setup="The network of claim 5, its first convolution left alone: smallest weights, n:m (3:4, 2:4, 1:4) or filters"
    " of smallest norm, as many parameters each, then the same short training. SmolLM2-135M: Wanda on single "
    "weights and n:m, LLM-Pruner on heads and channels, as many parameters of the model each, without training.",
    setting={
        "shares": (0.25, 0.5, HIGHEST),
        "retrain_steps": 200,
        "language_shares": (0.25, 0.5),
        "samples": 8,
        "length": 256,
        "windows": 8,
    },
    parts=(
        Part(
            "Fashion-MNIST, 75 %: test error of weights ≤ n:m ≤ filters, the first below the last.",
            lambda run: _stand_in_order(run, "error", ("weights", "n:m", "filters"), HIGHEST),
        ),
        Part(
            "SmolLM2, 25 % and 50 % of the decoder's weights: perplexity of weights < n:m < heads and channels.",
            lambda run: all(
                _stand_in_order(run, "perplexity", ("weights", "n:m", "heads and channels"), share)
                for share in (0.25, 0.5)
            ),
        ),
    ),
    panels=(
        Panel("error", "Fashion-MNIST", "share removed", "test error"),
        Panel(
            "perplexity", "SmolLM2-135M", "share of the decoder's weights removed", "perplexity", is_logarithmic=True
        ),
    ),
    reads=frozenset({"fashion-mnist", "language"}),
)

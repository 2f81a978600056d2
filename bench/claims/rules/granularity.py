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
    setup="The network is that of claim 5; its first convolution is left as it is. Three ways of pruning remove the "
    "same number of parameters: the smallest weights, n:m patterns (3:4, 2:4, 1:4), and the filters of smallest "
    "norm. The same short training follows each.\n\n"
    "SmolLM2-135M is pruned without training. Wanda removes single weights or n:m patterns, and LLM-Pruner "
    "removes heads and channels. Each removes the same number of the model's parameters.",
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
            "Fashion-MNIST, 75 % removed: the test errors are in the order weights ≤ n:m ≤ filters, and weights "
            "are below filters.",
            lambda run: _stand_in_order(run, "error", ("weights", "n:m", "filters"), HIGHEST),
        ),
        Part(
            "SmolLM2, 25 % and 50 % of the decoder's weights removed: the perplexities are in the order weights "
            "< n:m < heads and channels.",
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

"""Claim 9."""

from bench.claims.claim import Claim, Panel, Part

CLAIM = Claim(
    name="score_or_solve",
    title="Wanda's score reaches the perplexity of SparseGPT's solve in fewer seconds",
    papers=(
        "Sun et al.: A Simple and Effective Pruning Approach for Large Language Models (2023)",
        "Frantar, Alistarh: SparseGPT (2023)",
    ),
    setup="Half of the weights in the decoder of SmolLM2-135M are removed. Both methods calibrate on the same "
    "Wikipedia windows, which the seed chooses. The seconds are those of the pruning pass, without any "
    "evaluation. No other process runs at the same time.",
    setting={"sparsity": 0.5, "samples": 16, "length": 512, "windows": 16},
    parts=(
        Part(
            "Wanda's perplexity is at most 5 % above SparseGPT's.",
            lambda run: run.value("perplexity", "wanda", "50 %") <= 1.05 * run.value("perplexity", "sparsegpt", "50 %"),
        ),
        Part(
            "Wanda takes fewer seconds than SparseGPT.",
            lambda run: run.value("seconds", "wanda", "50 %") < run.value("seconds", "sparsegpt", "50 %"),
        ),
    ),
    panels=(
        Panel("perplexity", "Perplexity", "", "perplexity"),
        Panel("seconds", "Seconds to prune", "", "seconds"),
    ),
    reads=frozenset({"language"}),
    is_alone=True,
)

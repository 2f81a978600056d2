"""Claim 9."""

from bench.claims.claim import Claim, Panel, Part

CLAIM = Claim(
    name="score_or_solve",
    title="Wanda's score reaches the perplexity of SparseGPT's solve in fewer seconds",
    papers=(
        "Sun et al.: A Simple and Effective Pruning Approach for Large Language Models (2023)",
        "Frantar, Alistarh: SparseGPT (2023)",
    ),
    setup="SmolLM2-135M, half of the decoder's weights removed, both methods on the same Wikipedia windows, those of "
    "a seed. Seconds are of the walk that prunes, without any evaluation, in a process that nothing runs "
    "beside.",
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

"""Claim 5."""

from bench.claims.claim import Claim, Panel, Part, Run

SHARES = (0.2, 0.4, 0.6)
ALONE = 0.9


def _whole_lines(run: Run, order: str, other: str) -> bool:
    """Whether the error before training, averaged over the shares, is lower after one order than after another."""
    return run.mean("before", order, SHARES) < run.mean("before", other, SHARES)


CLAIM = Claim(
    name="filter_norms",
    title="Filters of smallest L1 norm can go; one retraining for a quarter of the training time is enough",
    papers=("Li et al.: Pruning Filters for Efficient ConvNets (2016)",),
    setup="A network of six 3 × 3 convolutions with batch-norm in three stages (16, 32 and 64 filters) on "
    "Fashion-MNIST. The same share of the parameters goes by the smallest norm, at random, or by the largest. "
    "Sensitivity: each convolution alone, smallest first, without retraining; the convolution that bears the "
    "loss of 90 % of its filters best is then cut so and retrained. Every retraining is one, for a quarter of "
    "the steps of the first training.",
    setting={"shares": SHARES, "rates": (0.25, 0.5, 0.75, ALONE), "rate_alone": ALONE, "images": 2000},
    parts=(
        Part(
            "Without retraining the test error, averaged over 20, 40 and 60 % of the parameters, is lower after the "
            "smallest than after the largest.",
            lambda run: _whole_lines(run, "smallest", "largest"),
        ),
        Part(
            "It is lower after the smallest than after random filters.",
            lambda run: _whole_lines(run, "smallest", "random"),
        ),
        Part(
            "After 20 % of the parameters and the one retraining, the test error is at most half a point above the "
            "dense network's, with at least 15 % of the FLOPs removed.",
            lambda run: (
                run.value("after", "smallest", 0.2) <= run.facts["dense error"] + 0.005
                and run.facts["FLOPs removed with 20 % of parameters"] >= 0.15
            ),
        ),
        Part(
            "One convolution can lose 90 % of its filters: after the retraining the test error is at most one point "
            "above the dense network's.",
            lambda run: (
                run.facts["error with 90 % of one convolution gone, retrained"] <= run.facts["dense error"] + 0.01
            ),
        ),
    ),
    panels=(
        Panel("before", "Without retraining", "share of parameters removed", "test error"),
        Panel("after", "After one retraining", "share of parameters removed", "test error"),
        Panel(
            "sensitivity", "One convolution alone", "share of its filters removed", "loss, nats", is_logarithmic=True
        ),
    ),
    reads=frozenset({"fashion-mnist"}),
)

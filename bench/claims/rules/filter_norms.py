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
    setup="The network has six 3 × 3 convolutions with batch-norm in three stages (16, 32 and 64 filters), and is "
    "trained on Fashion-MNIST. Filters are removed in one of three orders: smallest norm first, at random, or "
    "largest norm first. Each order removes the same share of the parameters.\n\n"
    "For the sensitivity, filters of one convolution alone are removed, smallest first, without retraining. The "
    "convolution that can best do without 90 % of its filters is then cut in the same way, and the network is "
    "retrained. Every network is retrained once, for a quarter of the steps of the first training.",
    setting={"shares": SHARES, "rates": (0.25, 0.5, 0.75, ALONE), "rate_alone": ALONE, "images": 2000},
    parts=(
        Part(
            "Without retraining, the test error is lower if the smallest filters are removed than if the "
            "largest are, as a mean over 20, 40 and 60 % of the parameters.",
            lambda run: _whole_lines(run, "smallest", "largest"),
        ),
        Part(
            "Without retraining, the mean test error over the same shares is lower if the smallest filters are "
            "removed than if random ones are.",
            lambda run: _whole_lines(run, "smallest", "random"),
        ),
        Part(
            "With 20 % of the parameters removed and one retraining, the test error is at most half a point "
            "above the dense network's, and at least 15 % of the FLOPs are removed.",
            lambda run: (
                run.value("after", "smallest", 0.2) <= run.facts["dense error"] + 0.005
                and run.facts["FLOPs removed with 20 % of parameters"] >= 0.15
            ),
        ),
        Part(
            "One convolution can lose 90 % of its filters: after the retraining, the test error is at most one "
            "point above the dense network's.",
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

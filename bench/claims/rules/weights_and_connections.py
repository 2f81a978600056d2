"""Claim 4."""

from bench.claims.claim import Claim, Panel, Part, Run

HIGH_RATE = 0.8


def _first_is_most_sensitive(run: Run) -> bool:
    losses = {layer: run.value("sensitivity", layer, HIGH_RATE) for layer in run.curves["sensitivity"]}
    return max(losses, key=losses.__getitem__) == next(iter(losses))


CLAIM = Claim(
    name="weights_and_connections",
    title="40 to 50 % of weights are a free lunch; iterating beats one shot; the first convolution is most sensitive",
    papers=("Han et al.: Learning both Weights and Connections for Efficient Neural Networks (2015)",),
    setup="LeNet-5 (431 thousand parameters at 28 × 28) on Fashion-MNIST is tested in three ways.\n\n"
    "- Without retraining: the smallest weights of every layer are removed, at the same rate in each layer.\n"
    "- Iterative against one shot: both reach the same sparsity with the same number of retraining steps. The "
    "iterative way removes weights in six rounds, the other in a single cut.\n"
    "- Sensitivity: each layer is pruned alone, and the loss on training images is measured.\n\n"
    "Trials on seeds 0 and 1 said no to both questions without retraining. Nothing was changed after them.",
    setting={
        "sparsities": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "high_sparsities": (0.95, 0.98),
        "rounds": 6,
        "retrain_steps": 200,
        "rates": (0.2, 0.4, 0.6, HIGH_RATE),
    },
    parts=(
        Part(
            "Without retraining, at 40 % sparsity, the test error is at most half a point above the dense network's.",
            lambda run: run.value("error", "no retraining", 0.4) <= run.facts["dense error"] + 0.005,
        ),
        Part(
            "Without retraining, at 50 % sparsity, the test error is at most one point above the dense network's.",
            lambda run: run.value("error", "no retraining", 0.5) <= run.facts["dense error"] + 0.01,
        ),
        Part(
            "At 98 % sparsity, the iteratively pruned network has a lower test error than the network pruned in "
            "one shot.",
            lambda run: run.value("error", "iterative", 0.98) < run.value("error", "one shot, retrained", 0.98),
        ),
        Part(
            "When each layer alone is pruned by 80 %, the first convolution gives the highest loss.",
            _first_is_most_sensitive,
        ),
    ),
    panels=(
        Panel("error", "Test error", "share of weights removed", "error"),
        Panel(
            "sensitivity", "One layer alone", "share of its weights removed", "cross-entropy, nats", is_logarithmic=True
        ),
    ),
    reads=frozenset({"fashion-mnist"}),
)

"""Claim 2."""

from bench.claims.claim import Claim, Panel, Part

CLAIM = Claim(
    name="prune_and_retrain",
    title="Deleting and retraining in turn takes more than half of the parameters without a loss",
    papers=(
        "LeCun, Denker, Solla: Optimal Brain Damage (1989)",
        "Han et al.: Learning both Weights and Connections (2015)",
    ),
    setup="The network is the digit network of claim 1. Weights are deleted in steps, from one share to the next. In "
    "each step OBD deletes the least salient weights; then the other weights are trained further, while the "
    "deleted ones stay zero. The result is compared with two others: the same deletions at once without "
    "training, and the dense network trained for as many steps as the pruned one. The second comparison "
    "separates the effect of more training from the effect of pruning.",
    setting={
        "sparsities": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
        "steps": 600,
        "learning_rate": 5e-3,
        "retrain_steps": 150,
        "retrain_learning_rate": 2e-3,
    },
    parts=(
        Part(
            "With 50 % deleted, the test error of the retrained network is at most one point above that of the "
            "dense network trained for as long.",
            lambda run: (
                run.value("error", "retrained", 0.5) <= run.value("error", "dense, trained as long", 0.5) + 0.01
            ),
        ),
        Part(
            "With 70 % deleted too, the test error of the retrained network is at most one point above that of "
            "the dense network trained for as long.",
            lambda run: (
                run.value("error", "retrained", 0.7) <= run.value("error", "dense, trained as long", 0.7) + 0.01
            ),
        ),
        Part(
            "With 70 % deleted, the test error without retraining is more than one point higher than with retraining.",
            lambda run: run.value("error", "not retrained", 0.7) > run.value("error", "retrained", 0.7) + 0.01,
        ),
    ),
    panels=(
        Panel("error", "Test error", "share deleted", "error"),
        Panel("loss", "Training loss", "share deleted", "cross-entropy, nats", is_logarithmic=True),
    ),
    seeds=(10, 11, 12),
    reads=frozenset({"digits"}),
)

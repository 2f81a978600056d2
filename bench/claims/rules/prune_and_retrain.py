"""Claim 2."""

from bench.claims.claim import Claim, Panel, Part

CLAIM = Claim(
    name="prune_and_retrain",
    title="Deleting and retraining in turn takes more than half of the parameters without a loss",
    papers=(
        "LeCun, Denker, Solla: Optimal Brain Damage (1989)",
        "Han et al.: Learning both Weights and Connections (2015)",
    ),
    setup="The digit network of claim 1. From one share to the next the least salient weights go by OBD and the rest "
    "is trained on, zeros held. Beside it the same deletions in one go without training, and the dense network "
    "trained for as many steps as the pruned one, so that what more training does is not taken for what pruning"
    " does.",
    setting={
        "sparsities": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
        "steps": 600,
        "learning_rate": 5e-3,
        "retrain_steps": 150,
        "retrain_learning_rate": 2e-3,
    },
    parts=(
        Part(
            "With 50 % deleted the retrained network's test error is at most one point above that of the dense network "
            "trained as long.",
            lambda run: (
                run.value("error", "retrained", 0.5) <= run.value("error", "dense, trained as long", 0.5) + 0.01
            ),
        ),
        Part(
            "So it is with 70 % deleted.",
            lambda run: (
                run.value("error", "retrained", 0.7) <= run.value("error", "dense, trained as long", 0.7) + 0.01
            ),
        ),
        Part(
            "With 70 % deleted the test error without retraining is more than one point higher than with it.",
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

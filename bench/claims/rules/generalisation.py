"""Claim 8."""

from bench.claims.claim import Claim, Panel, Part, Run

NETWORK_AT, LANGUAGE_AT = 0.5, 0.2
HARMFUL = {"test error": 0.98, "in-domain perplexity": 0.6, "out-of-domain perplexity": 0.6, "recall": 0.6}


def _generalises_better(run: Run) -> bool:
    """Both a smaller gap and no higher test error than the dense network trained as long."""
    dense_gap, dense_error = (run.facts[f"dense {name}, trained as long"] for name in ("gap", "error"))
    return run.value("gap", "pruned", NETWORK_AT) < dense_gap and run.value("error", "test", NETWORK_AT) <= dense_error


def _improves(run: Run, line: str) -> bool:
    return run.value("perplexity", line, LANGUAGE_AT) < run.value("perplexity", line, 0.0)


CLAIM = Claim(
    name="generalisation",
    title="Moderate pruning generalises better than dense, beyond a knee it harms",
    papers=(
        "LeCun, Denker, Solla: Optimal Brain Damage (1989)",
        "Han et al.: Learning both Weights and Connections for Efficient Neural Networks (2015)",
    ),
    setup="LeNet-5 on Fashion-MNIST is pruned in rounds, as in claim 4, to each sparsity. The gap is the test error "
    "minus the training error. The dense network is trained for as many steps as a pruned one.\n\n"
    "SmolLM2-135M is pruned by Wanda, without training. Its perplexity is measured in the domain of its "
    "calibration text (Wikipedia) and outside it (source code of Python's standard library). Its recall is its "
    "accuracy on ARC-Easy, whose questions ask for facts.\n\n"
    "The knee is the largest sparsity up to which a figure stays near that of the dense model: the test error "
    "within a point, the perplexity within 5 %, the accuracy within a standard error.",
    setting={
        "sparsities": (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
        "rounds": 3,
        "retrain_steps": 150,
        "language_sparsities": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        "samples": 8,
        "length": 256,
        "windows": 8,
        "questions": 100,
        "tolerated_points": 0.01,
        "tolerated_ratio": 1.05,
    },
    parts=(
        Part(
            "Fashion-MNIST: at 50 % sparsity the gap is smaller than that of the dense network trained for as "
            "long, and the test error is not higher.",
            _generalises_better,
        ),
        Part(
            "SmolLM2: at 20 % sparsity the perplexity in the domain is lower than the dense model's.",
            lambda run: _improves(run, "in domain"),
        ),
        Part(
            "SmolLM2: at 20 % sparsity the perplexity outside the domain is lower than the dense model's.",
            lambda run: _improves(run, "out of domain"),
        ),
        Part(
            "The test error, both perplexities and recall each have a knee, and the highest sparsity is beyond it.",
            lambda run: all(run.facts[f"knee of {name}"] < highest for name, highest in HARMFUL.items()),
        ),
    ),
    panels=(
        Panel("error", "LeNet-5: error", "share of weights removed", "error"),
        Panel("gap", "LeNet-5: test minus training error", "share of weights removed", "gap"),
        Panel("perplexity", "SmolLM2: perplexity", "share of weights removed", "perplexity", is_logarithmic=True),
        Panel("recall", "SmolLM2: ARC-Easy", "share of weights removed", "accuracy"),
    ),
    reads=frozenset({"fashion-mnist", "language"}),
)

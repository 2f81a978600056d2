"""Claim 6."""

from bench.claims.claim import Claim, Panel, Part, Run

RIVALS = ("random", "minimum_weight", "activation", "obd")
COMPARED = (0.3, 0.5, 0.7)


def _taylor_is_closest(run: Run) -> bool:
    found = {name: run.value("correlation", name, "Spearman") for name in ("taylor", *RIVALS)}
    return max(found, key=found.__getitem__) == "taylor"


def _random_is_close(run: Run) -> bool:
    return abs(run.mean("error", "random", COMPARED) - run.mean("error", "minimum_weight", COMPARED)) <= 0.01


CLAIM = Claim(
    name="taylor_rankings",
    title="The Taylor criterion agrees best with the oracle, and keeps most accuracy for its FLOPs",
    papers=("Molchanov et al.: Pruning Convolutional Neural Networks for Resource Efficient Inference (2016)",),
    setup="The network is that of claim 5. The oracle is the change of the loss on a thousand training images when "
    "one feature map is set to zero. The Spearman correlation of each ranking with the oracle is taken over all "
    "maps of the network. Then each of four rankings removes filters until a share of the FLOPs is gone: a few "
    "filters in each round, with training between the rounds.",
    setting={
        "shares": COMPARED,
        "rankings": ("taylor", "minimum_weight", "activation", "random"),
        "images": 1000,
        "retrain_steps": 30,
        "filters_per_round": 8,
    },
    parts=(
        Part("The ranking by Taylor has the highest correlation with the oracle.", _taylor_is_closest),
        Part(
            "The test error is lower with Taylor than with minimum weight, as a mean over 30, 50 and 70 % of "
            "the FLOPs removed.",
            lambda run: run.mean("error", "taylor", COMPARED) < run.mean("error", "minimum_weight", COMPARED),
        ),
        Part(
            "The mean test errors of random and of minimum weight, over the same shares, differ by at most one point.",
            _random_is_close,
        ),
    ),
    panels=(
        Panel("correlation", "Agreement with the oracle", "", "Spearman correlation"),
        Panel("error", "Test error", "share of FLOPs removed", "error"),
        Panel("parameters", "Parameters left", "share of FLOPs removed", "share of the dense network's"),
    ),
    reads=frozenset({"fashion-mnist"}),
)

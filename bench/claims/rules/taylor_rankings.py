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
    setup="The network of claim 5. The oracle is the change of the loss on a thousand training images when a map is "
    "set to zero; each ranking's Spearman correlation with it is over all maps of the network. Then filters go "
    "by each of four rankings, a few in a round, with training between rounds, until a share of the FLOPs is "
    "removed.",
    setting={
        "shares": COMPARED,
        "rankings": ("taylor", "minimum_weight", "activation", "random"),
        "images": 1000,
        "retrain_steps": 30,
        "filters_per_round": 8,
    },
    parts=(
        Part("Of all rankings, Taylor's correlation with the oracle is highest.", _taylor_is_closest),
        Part(
            "The test error, averaged over 30, 50 and 70 % of the FLOPs, is lower by Taylor than by minimum weight.",
            lambda run: run.mean("error", "taylor", COMPARED) < run.mean("error", "minimum_weight", COMPARED),
        ),
        Part("The errors by random and by minimum weight, averaged so, lie within one point.", _random_is_close),
    ),
    panels=(
        Panel("correlation", "Agreement with the oracle", "", "Spearman correlation"),
        Panel("error", "Test error", "share of FLOPs removed", "error"),
        Panel("parameters", "Parameters left", "share of FLOPs removed", "share of the dense network's"),
    ),
    reads=frozenset({"fashion-mnist"}),
)

"""Claim 1."""

from bench.claims.claim import Claim, Panel, Part, Run

COMPARED = (0.3, 0.4, 0.5, 0.6)
PREDICTED_AT = 0.2


def _is_predicted(run: Run) -> bool:
    predicted, actual = (run.value("prediction", line, PREDICTED_AT) for line in ("predicted", "actual"))
    return predicted / 2 <= actual <= predicted * 2


CLAIM = Claim(
    name="optimal_brain_damage",
    title="OBD beats magnitude on the digit network, and predicts what a deletion costs",
    papers=("LeCun, Denker, Solla: Optimal Brain Damage (1989)",),
    setup="The network is the digit network of 1989 (2 678 parameters). It is trained on handwritten digits of 8 × 8 "
    "pixels, enlarged to the 28 × 28 pixels that it reads. All weights of the network are ranked together, and "
    "the lowest are deleted without retraining. OBD ranks them by ½·h·w², where h is the Gauss–Newton diagonal "
    "over all training images; h is computed again after every 5 % of the weights, because the paper repeats "
    "its recipe. Magnitude ranks them by |w|.\n\n"
    "Two more lines of loss and error are shown for comparison and decide no question. One is OBD that deletes "
    "all weights at once. The other takes h from the squared error of the outputs: that is the loss of the "
    "paper, but these networks were not trained with it.\n\n"
    "The increase that OBD predicts is the sum of ½·h·w² over the weights that are deleted at once. In trials "
    "on seeds 0 to 4, h was computed only once, and every seed said no to both questions. Only after that was h "
    "computed again during the deletion, as in the paper. The seeds below were in no trial.",
    setting={"sparsities": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "steps": 600, "learning_rate": 5e-3},
    parts=(
        Part(
            "The training loss is lower after OBD than after magnitude, as a mean over 30, 40, 50 and 60 % of "
            "the weights deleted.",
            lambda run: run.mean("loss", "obd", COMPARED) < run.mean("loss", "magnitude", COMPARED),
        ),
        Part(
            "With 20 % of the weights deleted at once, the increase of the loss is between half and twice the "
            "increase that OBD predicted.",
            _is_predicted,
        ),
    ),
    panels=(
        Panel("loss", "Training loss", "share deleted", "cross-entropy, nats", is_logarithmic=True),
        Panel("prediction", "Increase of the loss, OBD at once", "share deleted", "nats", is_logarithmic=True),
        Panel("error", "Test error", "share deleted", "error"),
    ),
    seeds=(10, 11, 12),
    reads=frozenset({"digits"}),
)

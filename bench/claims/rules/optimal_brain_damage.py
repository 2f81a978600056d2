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
    setup="The digit network of 1989 (2 678 parameters), trained on handwritten digits of 8 × 8 pixels enlarged to "
    "its 28 × 28. Weights of the whole network are ranked together and deleted without retraining: by ½·h·w², h"
    " the Gauss–Newton diagonal over all training images, taken anew after every 5 % of the weights as the "
    "paper's recipe repeats itself; or by |w|. For no rule: all deleted at once; and h of the squared error of "
    "the outputs, the paper's loss, for which these networks were not trained. What OBD predicts is the sum of "
    "½·h·w² over what is deleted at once. In trials on seeds 0 to 4, with h taken once, every seed said no to both "
    "questions; only then was h taken anew as in the paper. The seeds below were in no trial.",
    setting={"sparsities": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "steps": 600, "learning_rate": 5e-3},
    parts=(
        Part(
            "The training loss, averaged over 30, 40, 50 and 60 % deleted, is lower after OBD than after magnitude.",
            lambda run: run.mean("loss", "obd", COMPARED) < run.mean("loss", "magnitude", COMPARED),
        ),
        Part(
            "With 20 % deleted at once the loss has increased by between half and twice what OBD predicted.",
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

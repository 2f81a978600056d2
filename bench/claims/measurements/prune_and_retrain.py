"""Claim 2: OBD and retraining in turn."""

import copy
from typing import Any

from bench.claims.networks import digit_network, outcome, prune, pruned, train
from bench.claims.record import Record


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """From share to share, each network from the one before."""
    data, dense = digit_network(seed, setting)
    record.fact("dense test error", outcome(dense, data.test).error)
    chain, control = copy.deepcopy(dense), copy.deepcopy(dense)
    training = {
        "retrain_steps": setting["retrain_steps"],
        "learning_rate": setting["retrain_learning_rate"],
        "batch_size": 64,
        "seed": seed,
    }
    for sparsity in setting["sparsities"]:
        prune(chain, "obd", sparsity, data.train, rounds=1, **training)
        train(control, data.train, setting["retrain_steps"], setting["retrain_learning_rate"], seed=seed)
        cut, _ = pruned(dense, "obd", sparsity, data.train, rounds=1, retrain_steps=0)
        for line, model in (("retrained", chain), ("not retrained", cut), ("dense, trained as long", control)):
            record.point("error", line, sparsity, outcome(model, data.test).error)
            record.point("loss", line, sparsity, outcome(model, data.train).loss)

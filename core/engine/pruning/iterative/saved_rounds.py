"""Rounds of an iterative method, saved and restored: the entire model, its grouped convolutions, the method's state."""

from torch import nn

from core.engine.models.classifier import COUNTERS
from core.engine.models.reshaping import reshape_modules
from core.engine.pruning.network import Network
from core.engine.resume.kinds import ROUND
from core.engine.resume.store import JsonObject, Saved

_MODEL = "model"


def save_round(network: Network, number: int, state: JsonObject) -> None:
    """Save the model and the method's own state after a round; without a store, do nothing."""
    if network.store is None:
        return
    tensors = {name: each for name, each in network.model.state_dict().items() if not name.endswith(COUNTERS)}
    groups = {name: each.groups for name, each in network.model.named_modules() if isinstance(each, nn.Conv2d)}
    network.store.save(ROUND, number, {_MODEL: tensors}, {"groups": groups, "state": state})


def restore_round(network: Network) -> tuple[int, JsonObject] | None:
    """Restore the model of the newest saved round; return its number and the method's state, or None without one."""
    saved = None if network.store is None else network.store.load(ROUND)
    if not isinstance(saved, Saved):
        return None
    tensors = saved.read(_MODEL)
    reshape_modules(network.model, tensors, saved.state["groups"])
    network.model.load_state_dict(tensors, strict=False)
    network.progress.log(f"continuing after round {saved.position}")
    return saved.position, saved.state["state"]

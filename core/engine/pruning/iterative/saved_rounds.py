"""Rounds of an iterative method, saved and restored: the entire model, its grouped convolutions, the method's state."""

from torch import nn

from core.engine.models.classifier import COUNTERS
from core.engine.models.reshaping import reshape_modules
from core.engine.pruning.network import Network
from core.engine.resume.kinds import ROUND
from core.engine.resume.store import JsonObject, Saved

_MODEL = "model"


def save_round(network: Network, number: int, state: JsonObject) -> None:
    """Save the model after a round, with the method's own state, where the network has a store."""
    if network.store is None:
        return
    tensors = {name: each for name, each in network.model.state_dict().items() if not name.endswith(COUNTERS)}
    groups = {name: each.groups for name, each in network.model.named_modules() if isinstance(each, nn.Conv2d)}
    network.store.save(ROUND, number, {_MODEL: tensors}, {"groups": groups, "state": state})


def restore_round(network: Network) -> tuple[int, JsonObject] | None:
    """Make the model that of the newest saved round; return its number and the method's state, None: there is none."""
    saved = None if network.store is None else network.store.load(ROUND)
    if not isinstance(saved, Saved):
        return None
    tensors = saved.read(_MODEL)
    reshape_modules(network.model, tensors, saved.state["groups"])
    network.model.load_state_dict(tensors, strict=False)
    network.progress.log(f"continuing after round {saved.position}")
    return saved.position, saved.state["state"]

"""Answers of the hub in shapes that nobody expects: each is a named error, whatever the hub's own library raises."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from core.service.sources.hub import Hub
from core.service.sources.hub_search import HubSearch
from core.settings import Settings
from secateur_wire.errors import SecateurError
from tests.sources.hub_server import HubState

ODD: list[Any] = [None, True, 0, -1, 1e400, "", "\0", "x" * 300, [], [[]], {}, {"": None}, {"a": [1]}, 2**70, [None]]


def poisoned_cards() -> Iterator[dict[str, Any]]:
    """Cards with keys that the library takes for arguments, and with values of another type."""
    for key in ("ignore_metadata_errors", "self", "eval_results", "model-index", "tags", "configs", "datasets", ""):
        for value in ODD:
            yield {key: value}


def changed(info: dict[str, Any], rng: random.Random) -> Any:
    """Return the answer with one value, at any depth, of another type or missing."""
    node: Any = info
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        if rng.random() < 0.2 and isinstance(node, dict):
            del node[key]
        else:
            node[key] = rng.choice(ODD)
        return info


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_card_of_any_shape_is_read_or_refused_by_name(kind: Any, node: Settings, hub: HubState) -> None:
    hub.add(kind, "forest/oak").commit({"README.md": b"# Oak"})
    refusals = []
    for card in poisoned_cards():
        hub.describe = lambda info, card=card: info | {"cardData": card}  # type: ignore[misc]
        try:
            Hub(node.model_copy(update={"hub_endpoint": hub.endpoint})).listing(kind, "forest/oak", None)
        except SecateurError as error:
            refusals.append(error.code)
    assert len(refusals) >= len(ODD), "what names an argument twice is one that no library takes"
    assert set(refusals) == {f"unusable_{kind}"}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_an_answer_of_any_shape_is_read_or_refused_by_name(kind: Any, node: Settings, hub: HubState) -> None:
    hub.add(kind, "forest/oak").commit({"README.md": b"# Oak", "model.safetensors": bytes(3000)})
    settings = node.model_copy(update={"hub_endpoint": hub.endpoint})
    rng = random.Random(0)
    refused = 0
    for _ in range(150):
        hub.describe = lambda info: changed(info, rng)
        try:
            Hub(settings).listing(kind, "forest/oak", None)
        except SecateurError:
            refused += 1
    for whole in ODD:
        hub.describe = lambda info, whole=whole: whole  # type: ignore[misc]
        with pytest.raises(SecateurError):
            Hub(settings).listing(kind, "forest/oak", None)
    assert refused > 15


def test_a_search_answered_in_any_shape_finds_nothing_or_what_can_be_read(node: Settings, hub: HubState) -> None:
    settings = node.model_copy(update={"hub_endpoint": hub.endpoint})
    hub.add("model", "forest/oak")
    for answer in (b"[" * 200_000, b"{}", b"\xff", b'[{"id": 1}, {"id": "a/b", "downloads": {}}, null, 7]', b""):
        hub.found = answer
        assert [each.name for each in HubSearch(settings).search("oak")] in ([], ["a/b"])

"""The picture of a model made smaller: a panel for each kind of units, layers that are gone, costs that are known."""

import xml.etree.ElementTree as ElementTree

from core.pipeline.reports.report import Report
from core.pipeline.reports.shape_chart import shape_chart

_EXPERTS = {"name": "model.layers.0", "layer": 0, "kept": [0, 2], "scores": [0.5, 0.1, 0.4]}
_ROUTING = {"tokens": [5, 1, 4], "tokens_left": [4, 6], "error": 0.3, "refitted": 0.1}


def _row(layer: int, kind: str, before: int, after: int, cost: float | None = None) -> dict[str, object]:
    return {"layer": layer, "kind": kind, "before": before, "after": after, "cost": cost}


def _chart(*rows: dict[str, object], **sections: object) -> str:
    return shape_chart(Report.model_validate({"layers": rows} | sections), title="Layers")


def _words(svg: str) -> list[str]:
    return [each.text for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text") if each.text]


def test_each_kind_has_a_panel_and_costs_have_one_where_a_row_has_its_cost() -> None:
    rows = [_row(0, "heads", 3, 2), _row(0, "channels", 64, 32), _row(1, "layer", 1, 0)]
    words = _words(_chart(*rows))
    assert {"heads kept", "channels kept", "Layers; hatched: 1 layer removed"} <= set(words)
    assert "cost, nats a token" not in words
    words = _words(_chart(*rows, _row(2, "channels", 64, 16, cost=0.5)))
    assert "cost, nats a token" in words


def test_equal_figures_give_equal_bytes_and_a_narrower_layer_another_picture() -> None:
    rows = [_row(0, "channels", 64, 32), _row(1, "channels", 64, 48)]
    assert _chart(*rows) == _chart(*rows)
    assert _chart(*rows) != _chart(rows[0], _row(1, "channels", 64, 40))


def test_experts_have_a_panel_of_their_tokens_where_these_are_known() -> None:
    row = _row(0, "experts", 3, 2)
    known, unknown = (_chart(row, experts=[_EXPERTS | {"routing": each}]) for each in (_ROUTING, None))
    assert {"tokens of an expert", "before, goes", "after"} <= set(_words(known))
    assert unknown == _chart(row)

"""Vocabulary's bench: its goals beside figures, and what it tries tokenizers with."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

from bench.cells import Runner
from bench.service import Service
from bench.vocabulary.families_cell import try_family
from bench.vocabulary.plan import (
    ALONE,
    CASES,
    DISTILLED,
    FRONTIER,
    FRONTIER_WITH,
    JUDGED_ALONE,
    JUDGED_ON,
    TOKENS,
    cases,
)
from bench.vocabulary.report import page
from bench.vocabulary.running import Bench, measured
from core.service.jobs.schemas import JobBody

RATES = {"dense": 50.0, "pruned": 55.0, "spread": 0.1, "noise": 0.02}
SPEED = {
    "prefill": RATES,
    "decode": RATES,
    "prompt_tokens": 64,
    "decoded_tokens": 32,
    "rounds": 7,
    "threads": 2,
    "dense_bytes": 144,
}
REDUCED = {
    "kept": TOKENS,
    "used": 27098,
    "tokens": 469231,
    "parameters": [1000, 860],
    "seconds": 9.0,
    "processor_seconds": 8.0,
    "peak_bytes": 10**9,
    "measured": "2026-12-01",
}


def _figures(left: float, bits: float, **more: Any) -> dict[str, Any]:
    dense = 1000
    return {
        "seconds": 10.0,
        "load": [1.0, 2.0],
        "parameters": {"dense": dense, "nonzero": round(left * dense)},
        "bits_per_byte": {name: {"ratio": bits, "ratio_stderr": 0.001} for name in JUDGED_ON},
        "exports": [],
        **more,
    }


def test_goals_stand_beside_what_came_out() -> None:
    export = {"file": "a.gguf", "format": "gguf", "type": "Q8_0", "bytes": 128, "speed": SPEED}
    family = {"kind": "BytePairs", "tokens": 9, "left": 5, "texts": 7, "kept": 4, "alike": 4, "failures": []}
    compared = {"read": 9, "found": 5, "alike": 5, "to_the_bit": 4, "difference": 1e-5, "top": 5, "tokens": 9}
    bench = Bench(cast(Service, None), Runner(runs=False), 1, "Llama")
    bench.found = {ALONE: _figures(0.86, 1.01, exports=[export]), FRONTIER_WITH: _figures(0.70, 1.20)}
    bench.found[FRONTIER] = _figures(0.84, 1.21)
    bench.found[DISTILLED] = _figures(0.86, 1.02)
    bench.logits = {"articles": compared}
    bench.reduced = {ALONE: REDUCED}
    quality = {"losses": [[100.0, 100.0], [101.0, 103.0]], "predicted": 100, "lengths": [1000, 1100]}
    bench.quality = {(ALONE, name): quality for name in JUDGED_ALONE}
    text = page(bench, {"Unigram": family})
    rows = {cells[1].strip(): cells[2:] for line in text.splitlines() if len(cells := line.split("|")) == 6}
    assert [each.strip() for each in rows["same tokens, renumbered, in kept texts"][1:3]] == ["4 of 4", "yes"]
    assert [each.strip() for each in rows["parameters with 16,384 tokens"][1:3]] == ["0.8600", "yes"]
    assert [each.strip() for each in rows[f"bits per byte on {JUDGED_ON[0]} ÷ dense"][1:3]] == ["1.0200", "no"]
    assert rows[f"bits per byte on {JUDGED_ON[1]} ÷ dense"][2].strip() == "yes"
    assert [rows[f"the same on {name}, distilled"][2].strip() for name in JUDGED_ON[:2]] == ["no", "yes"]
    assert rows["logits on kept texts"][2].strip() == "no" and "4 of 5" in rows["logits on kept texts"][1]
    assert "0.80 (× 1.10, spread 10%)" in rows["part of the gain in bytes that decoding gains"][1]
    assert rows["parameters after frontier, with vocabulary"][2].strip() == "yes"
    assert rows["decoding after half of the layers went"][2].strip() == "–", "it was not run"
    assert "1.100 on wikipedia-articles" in text and "1.0200 ± 0.0100" in text
    (row,) = measured(bench, "a machine", "0.1.0")
    assert row.parameters == {"tokens": TOKENS} and row.perplexity["in_domain"].mean == pytest.approx(math.exp(0.04))


def test_bodies_of_jobs_are_bodies() -> None:
    planned = cases(0.79, 16, 256, 8)
    assert [each.name for each in planned] == list(CASES)
    for each in planned:
        JobBody.model_validate(each.named(dict.fromkeys(CASES, "job_1")))


def test_a_tokenizer_of_a_kind_is_cut_and_compared(tmp_path: Path) -> None:
    documents = [
        f"the {word} grows in the garden\nand the {word}s grow too" for word in ("rose", "fern", "moss", "tree")
    ]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": each}) + "\n" for each in documents * 20))
    spec = {"family": "byte-level BPE", "folder": None, "text": str(text), "share": 0.9, "drawn": 50}
    figures = try_family(spec)
    assert 0 < figures["kept"] == figures["alike"] < figures["texts"]
    assert figures["left"] < figures["tokens"] and not figures["failures"]

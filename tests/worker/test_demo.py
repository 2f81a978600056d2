"""Figures that the demo shows: those of every job, and what the dense model costs without pruning."""

from secateur_wire.metrics import Metrics
from worker.cli.demo import figures_of


def test_the_demo_sets_bytes_beside_a_bfloat16_copy_and_counts_tokens_a_second() -> None:
    metrics = Metrics.model_validate(
        {
            "parameters": {"dense": 1_000, "nonzero": 900},
            "bytes": {"dense": 4_000, "artifact": 1_800},
            "perplexity": {"text": {"dense": 20.0, "pruned": 24.0, "ratio": 1.2}},
            "latency": {"dense_ms": 100.0, "pruned_ms": 90.0, "decode_dense_ms": 10.0, "decode_pruned_ms": 8.0},
        }
    )
    shown = {each.label: (each.dense, each.pruned) for each in figures_of(metrics)}
    assert shown["perplexity on text"] == (20.0, 24.0)
    assert shown["size"] == (4_000, 1_800) and shown["size, the dense model in bfloat16 too"] == (2_000, 1_800)
    assert shown["decode, tokens/s"] == (100.0, 125.0)


def test_the_demo_shows_what_was_measured_and_no_more() -> None:
    assert [each.label for each in figures_of(Metrics())] == []

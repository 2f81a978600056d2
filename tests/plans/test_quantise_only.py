"""A plan for size that a measured copy of no more bytes beats."""

from secateur_wire.metrics import Alternative
from tests.plans.desk import BODY, METRICS, Desk


def test_a_plan_says_to_quantise_only_where_a_measured_copy_of_no_more_bytes_is_better(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    zeros = {**BODY, "model": "wide", "output": {"format": "packed"}, "evaluation": {"datasets": ["my-articles"]}}
    perplexity = {"my-articles": {"dense": 20.0, "pruned": 26.0, "ratio": 1.3, "sequence_length": 512}}
    desk.ended_job(zeros, {**METRICS, "perplexity": perplexity}, "wide")
    before = desk.plan("wide", "size", keep_quality=4.0)
    planned, bits = before.figures["bytes_ratio"].estimate, before.figures["bits_per_byte_ratio"]
    assert "Quantise only" not in before.summary and bits.low > 1.02

    def measured(scheme: str, share: float, ratio: float) -> Alternative:
        quality = {"ratio": ratio**3, "bits_per_byte": {"ratio": ratio}}
        body = {"model": "wide", "method": "none", "output": {"quantization": {"scheme": scheme}}}
        sizes = {"dense": 538_060_032, "artifact": round(share * 538_060_032)}
        desk.ended_job(body, {"perplexity": {"my-articles": quality}, "bytes": sizes}, "wide")
        (copy,) = (each for each in desk.plan("wide", "size").alternatives if each.name == f"dense in {scheme}")
        chosen = copy.output["quantization"]
        assert isinstance(chosen, dict) and (chosen["scheme"], chosen["rounding"]) == (scheme, "nearest")
        assert copy.bits_per_byte_ratio == ratio
        return copy

    measured("int8", planned * 1.01, 1.0001)
    assert "Quantise only" not in desk.plan("wide", "size", keep_quality=4.0).summary, "it takes more bytes"
    copy = measured("int4", planned * 0.9, 1.02)
    after = desk.plan("wide", "size", keep_quality=4.0)
    assert "Quantise only: the dense model in int4 has" in after.summary and "× 1.02" in after.summary
    assert after.instead is not None and after.instead["output"] == copy.output
    measured("int4", planned * 0.9, bits.low + 0.01)
    assert "Quantise only" not in desk.plan("wide", "size", keep_quality=4.0).summary, "it may be the worse"

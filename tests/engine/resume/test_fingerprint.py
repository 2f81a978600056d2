"""The fingerprint of a stage changes with each thing its numbers depend on, and with nothing else."""

import hashlib
from dataclasses import replace
from typing import Any

import torch

from core.engine.resume.store import VERSIONS, Runtime, fingerprint, tensors_sha256

FACTS: dict[str, Any] = {"method": "wanda", "sparsity": 0.5, "tokens": {"text": "ab"}, "rates": [0.1]}
CPU = torch.device("cpu")


def test_it_is_that_of_the_same_job_on_the_same_kind_of_machine() -> None:
    runtime = Runtime.of(CPU, torch.float32)
    assert runtime == Runtime("cpu", 1, "torch.float32", runtime.versions) and set(runtime.versions) == set(VERSIONS)
    before = fingerprint("prune", FACTS, runtime)
    assert before == fingerprint("prune", dict(reversed(FACTS.items())), Runtime.of(CPU, torch.float32))
    assert Runtime.of(torch.device("cuda", 1), torch.float32).device == "cuda", "the kind, not the number"
    torch.set_num_threads(2)
    assert Runtime.of(CPU, torch.float32).threads == 2


def test_it_changes_with_the_arithmetic_the_stage_and_every_fact() -> None:
    runtime = Runtime.of(CPU, torch.float32)
    others = ({"device": "cuda"}, {"threads": 2}, {"dtype": "torch.bfloat16"}, {"versions": {"torch": "1.0"}})
    for other in others:
        assert fingerprint("prune", FACTS, replace(runtime, **other)) != fingerprint("prune", FACTS, runtime)
    changes = [{"method": "x"}, {"sparsity": 0.50000001}, {"tokens": {"text": "ac"}}, {"rates": []}, {"more": None}]
    given = [("recover", FACTS), *(("prune", FACTS | change) for change in changes), ("prune", FACTS)]
    assert len({fingerprint(stage, facts, runtime) for stage, facts in given}) == len(given)


def test_tensors_are_hashed_by_their_bytes_however_they_lie() -> None:
    tensor = (torch.arange(12) % 5 % 3).reshape(3, 4).bfloat16()
    expected = hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
    assert tensors_sha256(tensor) == tensors_sha256(tensor.T.contiguous().T) == expected
    assert tensors_sha256(tensor, tensor[:0]) == expected == tensors_sha256(tensor[:1], tensor[1:])
    assert tensors_sha256(tensor.T) != expected

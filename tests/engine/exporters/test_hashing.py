"""Weight sharing by a hash: the fit, collisions against theory, and files that come back byte for byte."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from core.engine.exporters.hashed.classifier import bucket_values, expand, share
from core.engine.exporters.hashed.exporter import hash_file, hash_folder
from core.engine.exporters.hashed.sharing import HashSharing
from secateur_wire.weights.hashed import bucket_and_sign, expand_file
from secateur_wire.weights.packed import CorruptPackedFile, unpack_folder


def matrix(out: int = 60, into: int = 50, sparsity: float = 0.0, seed: int = 0) -> torch.Tensor:
    weight = torch.randn(out, into, generator=torch.Generator().manual_seed(seed))
    weight.view(-1)[weight.abs().view(-1).argsort()[: round(sparsity * weight.numel())]] = 0
    return weight


def test_the_hash_is_the_published_one_and_depends_on_place_and_seed_alone() -> None:
    """SplitMix64's first outputs from seed 0, as its authors' code gives them."""
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    bucket, is_negative = bucket_and_sign(0, 3, seed=0, buckets=2**31)
    assert bucket.tolist() == [each >> 33 for each in published]
    assert is_negative.tolist() == [bool(each & 1) for each in published]
    later, _ = bucket_and_sign(1, 2, seed=0, buckets=2**31)
    assert later.tolist() == bucket[1:].tolist()
    other, _ = bucket_and_sign(0, 3, seed=1, buckets=2**31)
    assert other.tolist() != bucket.tolist()


@given(st.integers(1, 400), st.floats(0, 0.95), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_no_other_values_fit_better(buckets: int, sparsity: float, seed: int) -> None:
    weight_OI, sharing = matrix(20, 15, sparsity), HashSharing(seed, buckets)
    values_K = bucket_values(weight_OI, sharing)
    survives_OI = weight_OI != 0

    def error(values: torch.Tensor) -> float:
        return float((expand(values, survives_OI, sharing) - weight_OI).double().square().sum())

    best = error(values_K)
    for step in (0.01, -0.01):
        assert best <= error(values_K + step * torch.randn(buckets, generator=torch.Generator().manual_seed(1))) + 1e-9
    assert bool((expand(values_K, survives_OI, sharing)[~survives_OI] == 0).all())


@pytest.mark.parametrize(("dtype", "sparsity"), [(torch.float32, 0.0), (torch.bfloat16, 0.8)])
def test_a_shared_file_comes_back_byte_for_byte(
    tmp_path: Path, dtype: torch.dtype, sparsity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (
        "core.engine.exporters.safetensors_parts",
        "secateur_wire.weights.restore",
        "secateur_wire.weights.hashed",
    ):
        monkeypatch.setattr(f"{module}.CHUNK_WEIGHTS", 64)
    sharing = HashSharing(2**33 + 1, 150)
    tensors = {
        "head.weight": share(matrix(sparsity=sparsity), sharing, dtype).to(dtype),
        "head.bias": torch.randn(60).to(dtype),
        "step": torch.tensor(3),
    }
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    dense = (tmp_path / "model.safetensors").read_bytes()
    sizes = hash_folder(tmp_path, {"head.weight": sharing})
    (file,) = tmp_path.glob("*.safetensors")
    assert file.name == "model.hashed.safetensors"
    stored = load_file(file)
    assert stored["head.weight.buckets"].shape == (150,) and stored["head.weight.buckets"].dtype == dtype
    assert ("head.weight.bitmask" in stored) == (sparsity > 0)
    assert sizes["bytes"] == file.stat().st_size < len(dense) == sizes["dense_bytes"]
    assert unpack_folder(tmp_path) == [tmp_path / "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == dense and not file.exists()


def test_what_is_not_shared_is_not_stored_so_and_damage_is_found(tmp_path: Path) -> None:
    sharing = HashSharing(1, 150)
    save_file({"w": matrix()}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="w is not shared over 150 buckets"):
        hash_file(tmp_path / "plain.safetensors", tmp_path / "plain.hashed.safetensors", {"w": sharing})
    save_file({"w": share(matrix(), sharing, torch.float32)}, tmp_path / "model.safetensors")
    hashed = tmp_path / "model.hashed.safetensors"
    hash_file(tmp_path / "model.safetensors", hashed, {"w": sharing})
    content = bytearray(hashed.read_bytes())
    content[-5] ^= 1
    hashed.write_bytes(content)
    with pytest.raises(CorruptPackedFile, match="SHA-256 differs"):
        expand_file(hashed, tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()

"""The packed format: byte for byte there and back, as small as it can be, and no damaged file gets through."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.packed.exporter import pack_file, pack_folder
from secateur_wire.weights.packed import CorruptPackedFile, unpack_file, unpack_folder
from tests.engine.sweeping import save, sweep
from tests.engine.tiny import make_model

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from([*_DTYPES.values(), torch.int64, torch.uint8]), min_size=5, max_size=5),
    sparsity=st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_any_file_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[list[int]],
    dtypes: list[torch.dtype],
    sparsity: float,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, shape in enumerate(shapes):
        values = torch.randn(shape, generator=generator) * 10
        values[torch.rand(shape, generator=generator) < sparsity] = 0.0
        if values.numel():
            values.view(-1)[0] = -0.0  # a zero whose bits are not all zero must come back as it was
        tensors[f"w{number}"] = values.to(dtypes[number])
    dense = folder / "model.safetensors"
    save_file(tensors, dense, {"format": "pt"})
    pack_file(dense, folder / "model.packed.safetensors")
    unpack_file(folder / "model.packed.safetensors", folder / "again.safetensors")
    assert (folder / "again.safetensors").read_bytes() == dense.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.75])
def test_size_is_the_bound(tmp_path: Path, dtype: str, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((1024, 1000), generator=generator).to(_DTYPES[dtype])
    weight.view(-1)[torch.randperm(weight.numel(), generator=generator)[: int(sparsity * weight.numel())]] = 0
    save_file({"w": weight}, tmp_path / "model.safetensors")
    size = pack_file(tmp_path / "model.safetensors", tmp_path / "model.packed.safetensors")
    bound = weight.numel() * (1 + (1 - sparsity) * 8 * weight.element_size()) / 8
    assert abs(size.bound / bound - 1) < 0.001
    assert size.stored == (tmp_path / "model.packed.safetensors").stat().st_size
    assert 1 <= size.stored / bound < 1.02


def test_tensors_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("core.engine.exporters.safetensors_parts", "secateur_wire.weights.restore"):
        monkeypatch.setattr(f"{module}.CHUNK_WEIGHTS", 64)
    weight = torch.randn(37, 53) * (torch.rand(37, 53) < 0.5)
    save_file({"w": weight, "dense": torch.randn(300)}, tmp_path / "model.safetensors")
    pack_file(tmp_path / "model.safetensors", tmp_path / "model.packed.safetensors")
    unpack_file(tmp_path / "model.packed.safetensors", tmp_path / "again.safetensors")
    assert _sha256(tmp_path / "again.safetensors") == _sha256(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pruned_checkpoint_packed_and_unpacked_opens_as_before(tmp_path: Path, dtype: str) -> None:
    source = make_model(tmp_path / "model", dtype=_DTYPES[dtype])
    tokens = torch.randint(96, (4, 16), generator=torch.Generator().manual_seed(0))
    result = sweep(
        source,
        tmp_path / "work",
        calibration=tokens,
        method="wanda",
        sparsity=0.5,
        pattern="unstructured",
        parameters={},
    )
    artifact = save(result, source, tmp_path / "artifact", shard_bytes=8_000)
    dense = {file.name: _sha256(file) for file in artifact.glob("*.safetensors")}
    assert len(dense) > 1, "the index of a sharded checkpoint has to survive too"
    figures = pack_folder(artifact)
    assert {name: entry["sha256"] for name, entry in figures["restores"].items()} == dense
    assert not set(dense) & {file.name for file in artifact.iterdir()}
    for file in artifact.glob("*.packed.safetensors"):
        with safe_open(file, "pt") as opened:  # valid for everybody, and the pruned zeros are all plain zeros
            for name in opened.keys():  # noqa: SIM118 - not a dictionary
                if name.endswith(".values"):
                    assert (opened.get_tensor(name) != 0).all()
    unpack_folder(artifact)
    assert {file.name: _sha256(file) for file in artifact.glob("*.safetensors")} == dense
    reload_check(artifact, result.verification, device=torch.device("cpu"))


def _packed(tmp_path: Path) -> Path:
    save_file({"w": torch.randn(64, 64) * (torch.rand(64, 64) < 0.5)}, tmp_path / "model.safetensors")
    pack_file(tmp_path / "model.safetensors", tmp_path / "model.packed.safetensors")
    (tmp_path / "model.safetensors").unlink()
    return tmp_path / "model.packed.safetensors"


def test_no_flipped_bit_gets_through(tmp_path: Path) -> None:
    packed = _packed(tmp_path)
    whole = packed.read_bytes()
    unpack_file(packed, tmp_path / "model.safetensors")
    dense = _sha256(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    for place in np.random.default_rng(0).integers(0, len(whole), 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        packed.write_bytes(damaged)
        try:
            unpack_file(packed, tmp_path / "model.safetensors")
        except CorruptPackedFile:
            assert not (tmp_path / "model.safetensors").exists()
        else:  # a bit nothing depends on, such as a space of the header
            assert _sha256(tmp_path / "model.safetensors") == dense
            (tmp_path / "model.safetensors").unlink()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.packed.safetensors"]


@pytest.mark.parametrize("keep", [0, 7, 100, 2000])
def test_a_truncated_file_is_refused_and_kept(tmp_path: Path, keep: int) -> None:
    packed = _packed(tmp_path)
    packed.write_bytes(packed.read_bytes()[:keep])
    with pytest.raises(CorruptPackedFile, match=r"model\.packed\.safetensors"):
        unpack_folder(tmp_path)
    assert packed.exists()


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    packed = _packed(tmp_path)
    raw = packed.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for lie in ({"data_offsets": [0, 2**60]}, {"shape": [-1]}, {"dtype": "F64"}, {"data_offsets": "all"}):
        changed = dict(header) | {"w.values": header["w.values"] | lie}
        text = json.dumps(changed).encode()
        packed.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        with pytest.raises(CorruptPackedFile):
            unpack_file(packed, tmp_path / "model.safetensors")

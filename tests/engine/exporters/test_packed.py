"""The packed format: byte for byte there and back, as small as it can be, and no damaged file gets through."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.packed.exporter import PackedSize, pack_file, pack_folder
from secateur_wire.weights.packed import CorruptPackedFile, unpack_file, unpack_folder
from tests.engine.sweeping import save, sweep
from tests.engine.tiny import make_model, make_tokens

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(_DTYPES), min_size=5, max_size=5),
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


def test_tensors_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("core.engine.exporters.safetensors_parts", "secateur_wire.weights.restore"):
        monkeypatch.setattr(f"{module}.CHUNK_WEIGHTS", 64)
    weight = torch.randn(37, 53).masked_fill(torch.rand(37, 53) < 0.5, 0)
    save_file({"w": weight, "dense": torch.randn(300)}, tmp_path / "model.safetensors")
    size = pack_file(tmp_path / "model.safetensors", tmp_path / "model.packed.safetensors")
    unpack_file(tmp_path / "model.packed.safetensors", tmp_path / "again.safetensors")
    assert _sha256(tmp_path / "again.safetensors") == _sha256(tmp_path / "model.safetensors")
    assert size.bound == pytest.approx(weight.numel() / 8 + 4 * int(weight.count_nonzero()) + 4 * 300, abs=1)
    assert size.stored == (tmp_path / "model.packed.safetensors").stat().st_size


def _pack_and_unpack(folder: Path, tensors: dict[str, torch.Tensor], code_bits: int) -> tuple[PackedSize, Path]:
    """Return the sizes and the packed file of tensors that came back byte for byte."""
    dense, packed, again = (folder / name for name in ("model.safetensors", "model.packed.safetensors", "again"))
    save_file(tensors, dense, {"format": "pt"})
    size = pack_file(dense, packed, code_bits)
    unpack_file(packed, again)
    assert again.read_bytes() == dense.read_bytes()
    return size, packed


def _code_tensor(codes_OI: np.ndarray[Any, Any], bits: int) -> torch.Tensor:
    """Return int32 words of codes around zero; they fill the words."""
    numbers = (codes_OI.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    halves = numbers if bits == 8 else numbers[:, ::2] | numbers[:, 1::2] << 4
    return torch.from_numpy(halves.reshape(-1).view(np.int32).reshape(len(codes_OI), codes_OI.shape[1] * bits // 32))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(0, 5),
    words=st.integers(0, 23),
    bits=st.sampled_from([4, 8]),
    zeros=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.97, 1.0]),
    pattern=st.sampled_from(["unstructured", "2:4"]),
    chunk=st.sampled_from([24, 48, 3 * 2**20]),
    seed=st.integers(0, 2**16),
)
def test_codes_come_back_and_take_the_bytes_of_the_smallest_form(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    words: int,
    bits: int,
    zeros: float,
    pattern: str,
    chunk: int,
    seed: int,
) -> None:
    generator, half = np.random.default_rng(seed), 1 << (bits - 1)
    codes = generator.integers(-half, half, (rows, words * 32 // bits), dtype=np.int8)
    codes[generator.random(codes.shape) < zeros] = 0
    if pattern == "2:4":
        order = generator.permuted(np.tile(np.arange(4), (codes.size // 4, 1)), axis=1)
        codes[order.reshape(codes.shape) < 2] = 0
    words_OW = _code_tensor(codes, bits)
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur_wire.weights.codes.CHUNK_BYTES", chunk)
        size, packed = _pack_and_unpack(folder, {"l.weight_packed": words_OW}, bits)
    kept, count = np.count_nonzero(codes), codes.size
    forms = {"dense": count * bits / 8, "bitmask": np.ceil(count / 8) + np.ceil(kept * bits / 8)}
    with safe_open(packed, "np") as opened:
        stored = {name: opened.get_tensor(name).nbytes for name in opened.keys()}  # noqa: SIM118 - not a dictionary
    assert sum(stored.values()) == min(forms.values())
    length = int.from_bytes(packed.read_bytes()[:8], "little")
    assert size.stored == packed.stat().st_size == 8 + length + sum(stored.values())
    assert size.bound <= sum(stored.values()) < size.bound + 4


def test_codes_that_an_earlier_release_stored_in_pairs_are_unpacked(tmp_path: Path) -> None:
    dense, packed, again = (tmp_path / name for name in ("model.safetensors", "m.packed.safetensors", "again"))
    codes = np.array([[3, 0, 0, -2, 0, 5, 0, 0, 0, 0, 7, -8], [0, 0, 1, 0, 0, 0, 0, 0, 4, 4, 0, 0]] * 2, np.int8)
    words = torch.from_numpy((codes[:, ::2] + 8 | codes[:, 1::2] + 8 << 4).astype(np.uint8).reshape(-1).view(np.int32))
    save_file({"w_packed": words}, dense, {"format": "pt"})
    raw = dense.read_bytes()
    stored = {  # of each four codes two and the index of their places in (01, 02, 03, 12, 13, 23), three to a byte
        "w_packed.codes": torch.from_numpy(np.array([0x6B, 0xD8, 0x0F, 0x98, 0x88, 0xCC] * 2, np.uint8)),
        "w_packed.pairs": torch.tensor([2 + 6 * 0 + 36 * 5, 1 + 6 * 0 + 36 * 0] * 2, dtype=torch.uint8),
    }
    metadata = {
        "format": "secateur-packed", "version": "2", "code_bits": "4",
        "dense_header": raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode(), "dense_sha256": _sha256(dense),
    }  # fmt: skip
    save_file(stored, packed, metadata)
    unpack_file(packed, again)
    assert again.read_bytes() == raw
    save_file(stored | {"w_packed.pairs": stored["w_packed.pairs"][:3]}, packed, metadata)
    with pytest.raises(CorruptPackedFile, match="lacks its codes or their places"):
        unpack_file(packed, again)


def test_a_pruned_checkpoint_packed_and_unpacked_opens_as_before(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model")
    result = sweep(source, tmp_path / "work", calibration=make_tokens(4, 16), method="wanda", sparsity=0.5)
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


def _packed(tmp_path: Path, code_bits: int | None = None) -> Path:
    """Return a packed file of weights, or of codes."""
    tensors = {"w": torch.randn(64, 64) * (torch.rand(64, 64) < 0.5)}
    if code_bits is not None:
        codes = np.random.default_rng(0).integers(-8, 8, (64, 64), dtype=np.int8)
        codes[:, ::2] = 0
        tensors = {"w_packed": _code_tensor(codes, code_bits)}
    save_file(tensors, tmp_path / "model.safetensors")
    pack_file(tmp_path / "model.safetensors", tmp_path / "model.packed.safetensors", code_bits)
    (tmp_path / "model.safetensors").unlink()
    return tmp_path / "model.packed.safetensors"


@pytest.mark.parametrize("code_bits", [None, 4])
def test_no_flipped_bit_gets_through(tmp_path: Path, code_bits: int | None) -> None:
    packed = _packed(tmp_path, code_bits)
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


@pytest.mark.parametrize(
    ("code_bits", "entry", "lie"),
    [
        (None, "w.values", {"data_offsets": [0, 2**60]}),
        (None, "w.values", {"shape": [-1]}),
        (None, "w.values", {"dtype": "F64"}),
        (None, "w.values", {"data_offsets": "all"}),
        (4, "w_packed.codes", {"data_offsets": [0, 900]}),
        (4, "w_packed.bitmask", {"data_offsets": [0, 511]}),
        (4, "__metadata__", {"code_bits": "8"}),
        (4, "__metadata__", {"code_bits": "5"}),
        (4, "__metadata__", {"version": "3"}),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, code_bits: int | None, entry: str, lie: dict[str, object]
) -> None:
    packed = _packed(tmp_path, code_bits)
    raw = packed.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(header | {entry: header[entry] | lie}).encode()
    packed.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    with pytest.raises(CorruptPackedFile):
        unpack_file(packed, tmp_path / "model.safetensors")

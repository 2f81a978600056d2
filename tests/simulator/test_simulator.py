"""The simulated accelerator is as strict as CUDA, and as right as the CPU."""

import copy
import gc
import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.engine.models.accelerator import backend_of, default_device, to_main_memory
from core.engine.models.precision import forward_dtype
from core.engine.models.streamed import call_block
from core.engine.pruning.streams.block_gradients import draw_tokens
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import ON_THE_HOST, SEEDED, at_work_on


def training_step(device: torch.device) -> list[Tensor]:
    """A step of a network with convolution, attention, dropout, norms and a masked loss; all it leaves."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(2), nn.Linear(36, 16), nn.LayerNorm(16),
        nn.TransformerEncoderLayer(16, 4, 32, dropout=0.2, batch_first=True), nn.Flatten(), nn.Linear(128, 5),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(body.parameters(), fused=True)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 4, 2, 1])
    torch.manual_seed(1)
    loss = nn.functional.cross_entropy(body(images.to(device)), labels.to(device))
    loss.backward()
    optimizer.step()
    gradients = [each.grad for each in body.parameters() if each.grad is not None]
    return [each.detach().cpu() for each in (loss, *gradients, *body.state_dict().values())]


def test_a_training_step_leaves_what_it_leaves_on_the_cpu_bit_for_bit(device: torch.device) -> None:
    there, here = training_step(device), training_step(torch.device("cpu"))
    assert len(there) == len(here) > 30
    assert all(torch.equal(one, other) for one, other in zip(there, here, strict=True))


def test_solvers_sorts_masks_and_views_are_the_cpu_s(device: torch.device) -> None:
    def results(place: torch.device) -> list[Tensor]:
        matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).to(place)
        square = matrix @ matrix.T + torch.eye(6, device=place)
        changed = matrix.clone()
        changed[1:3, ::2] = 7
        changed.T[4].add_(1)
        changed[changed > 2] = -1
        changed[:, torch.tensor([0, 5], device=place)] *= 2
        out = torch.empty(0, dtype=torch.int64, device=place)
        torch.arange(4, out=out)
        return [
            torch.linalg.cholesky(square), torch.linalg.solve(square, matrix), torch.linalg.eigh(square)[0],
            matrix.kthvalue(3, dim=-1)[1], matrix.sort(stable=True)[1], matrix[matrix > 0], (matrix > 0).nonzero(),
            matrix.unfold(0, 2, 2).sum(-1), matrix.view(torch.int32) >> 5, changed, out, torch.cat([matrix] * 2),
            torch.einsum("ij,kj->ik", matrix, square), torch.bincount((matrix > 0).flatten().long()),
        ]  # fmt: skip

    for there, here in zip(results(device), results(torch.device("cpu")), strict=True):
        assert there.device == device and torch.equal(there.cpu(), here)


@pytest.mark.parametrize(
    "mix",
    [
        lambda one, other: one + other,
        lambda one, other: one @ other,
        lambda one, other: torch.cat([one, other]),
        lambda one, other: torch.addmm(one, other, one),
        lambda one, other: one.add_(other),
        lambda one, other: (one[0, 0].add_(other[0, 0]), other[0, 0].add_(one[0, 0])),  # one of these is the CPU's
        lambda one, other: torch.where(one > 0, one, other),
        lambda one, other: one.index_put_((torch.tensor([0], device=one.device),), other[:1]),
        lambda one, other: one.index_select(0, other[0].long()),
        lambda one, other: one.gather(0, other.long()),
        lambda one, other: torch.mul(one, one, out=other),
        lambda one, other: nn.functional.scaled_dot_product_attention(one[None], other[None], one[None]),
        lambda one, other: nn.functional.linear(one, other),
    ],
)  # fmt: skip
@pytest.mark.parametrize("other", ["cpu", "sim:0"])
def test_operands_on_two_devices_are_refused(
    mix: Callable[[Tensor, Tensor], Tensor], other: str, device: torch.device
) -> None:
    one = torch.ones(3, 3, device=device)
    for each in ((one, torch.ones(3, 3, device=other)), (torch.ones(3, 3, device=other), one)):
        with pytest.raises(RuntimeError, match="same device"):
            mix(*each)


def test_what_else_cuda_refuses_is_refused_by_name(device: torch.device) -> None:
    ones = torch.ones(3, device=device)
    with pytest.raises(TypeError, match="can't convert sim:1 device type tensor to numpy"):
        ones.numpy()
    with pytest.raises(RuntimeError, match="Expected a 'sim' device type for generator but found 'cpu'"):
        torch.rand(3, device=device, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same device"):
        torch.ones(3)[torch.tensor([0], device=device)]
    with pytest.raises(RuntimeError, match="pin"):
        ones.pin_memory()
    with pytest.raises(NotImplementedError, match="getPinnedMemoryAllocator"):  # which copies without waiting need
        ones.to("cpu", non_blocking=True)
    with pytest.raises(NotImplementedError, match="not pinned"):
        torch.empty(3).copy_(ones, non_blocking=True)
    with pytest.raises(torch.AcceleratorError, match="invalid device ordinal 2"):
        torch.ones(3, device="sim:2")
    assert float((ones + torch.tensor(2.0)).sum()) == 9.0, "a scalar of the CPU is a number"


def test_memory_is_counted_by_storage_and_has_an_end(simulated: SimulatedDevice) -> None:
    backend = backend_of(simulated.device)
    before = simulated.free
    ones = torch.ones(1000, device=simulated.device)
    view = ones[10:20].view(2, 5)
    assert backend.free_bytes() == before - 4096 and backend.peak_bytes() == 4096
    del ones
    assert simulated.free == before - 4096, "the view holds it"
    del view
    assert simulated.free == before and backend.peak_bytes() == 4096
    simulated.capacity = 8192
    held = torch.zeros(1024, device=simulated.device)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 8192 bytes.* of which 4096 bytes are free"):
        torch.zeros(2048, device=simulated.device)
    simulated.fails_allocation = lambda number, nbytes: nbytes == 400
    with pytest.raises(torch.OutOfMemoryError, match="400"):
        held[:100] * 2
    simulated.fails_allocation = None
    assert torch.equal((held[:100] * 2).cpu(), torch.zeros(100))
    del held
    gc.collect()
    assert simulated.allocated == 0


def test_copies_launches_and_waits_are_counted(simulated: SimulatedDevice) -> None:
    with simulated.counting() as counts:
        values = torch.arange(100.0).to(simulated.device)
        assert (counts.copies_to_device, counts.bytes_to_device, counts.launches, counts.waits) == (1, 400, 1, 0)
        doubled = values * 2
        assert (counts.launches, counts.waits) == (2, 0)
        doubled[doubled > 3] = 0  # filled by the mask, without its places
        assert counts.waits == 0
        float(doubled.sum())
        doubled[doubled == 0]
        doubled.cpu()
        doubled.tolist()
        assert dict(counts.synchronisations) == {"_local_scalar_dense": 1, "mask as index": 1, "copy to host": 2}
        assert (counts.copies_to_host, counts.bytes_to_host) == (2, 800)
        values.to("sim:0")
        assert counts.bytes_between_devices == 400
    assert simulated.counts.launches == 0


def test_a_copy_that_is_not_waited_for_is_there_after_the_next_wait(simulated: SimulatedDevice) -> None:
    backend = backend_of(simulated.device)
    with simulated.counting() as counts:
        values = backend.pinned(torch.arange(100.0)).to(simulated.device, non_blocking=True)
        assert counts.pinned_bytes_to_device == counts.bytes_to_device == 400
        copy = backend.copy_out(values)
        values.add_(1)
        assert counts.waits == 0 and copy.isnan().all(), "there is nothing to read yet"
        backend.synchronise()
        assert torch.equal(copy, torch.arange(100.0)), "as it was when the copy began"
        assert counts.pinned_bytes_to_host == counts.bytes_to_host == 400
        both = to_main_memory({"one": values, "other": torch.ones(1)})
        assert counts.waits == 2 and torch.equal(both["one"], torch.arange(100.0) + 1)


def test_a_fault_shows_when_the_program_next_waits_and_from_then_on(simulated: SimulatedDevice) -> None:
    values = torch.ones(3, device=simulated.device)
    simulated.fault_after(2)
    for _ in range(4):
        values = values + 1
    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        float(values.sum())
    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        values + 1
    assert float(torch.ones(3, device="sim:0").sum()) == 3.0, "the other device goes on"
    simulated.reset()
    simulated.fall_off_the_bus()
    with pytest.raises(torch.AcceleratorError, match="device 1 is lost"):
        values.cpu()


def test_there_are_devices_only_inside_the_context() -> None:
    with simulate() as devices:
        assert default_device() == torch.device("sim") and torch.ones(1, device="sim").device == devices[0].device
        assert torch.accelerator.is_available()
    assert default_device().type != "sim" and not torch.accelerator.is_available()


def test_what_the_product_leaves_to_the_cpu_is_found(device: torch.device) -> None:
    logits_PV, generator = torch.ones(2, 8), torch.Generator()
    with at_work_on(device):
        draw_tokens(logits_PV.to(device), generator)
        forward_dtype("auto", torch.float32, device)
    for work, found in (
        (lambda: draw_tokens(logits_PV, generator), "block_gradients.py draw_tokens: aten._softmax.default on the CPU"),
        (lambda: forward_dtype("auto", torch.float32, torch.device("cpu")), "forward_dtype: asks .* about the CPU"),
        (lambda: call_block(nn.Dropout(), logits_PV, ((), {})), "call_block: .* draws without a generator"),
    ):
        with pytest.raises(AssertionError, match=found), at_work_on(device):
            work()


@pytest.mark.parametrize("place", [*ON_THE_HOST, *SEEDED])
def test_places_that_may_work_on_the_cpu_are_there(place: str) -> None:
    file, name = place.split(" ")
    owner: object = importlib.import_module(f"core.{file.removesuffix('.py').replace('/', '.')}")
    for part in name.split("."):
        owner = getattr(owner, part)


def test_autocast_lowers_and_raises_as_cuda_s_does() -> None:
    with simulate(LIKE_CUDA), torch.autocast("sim", torch.bfloat16):
        answer = nn.Linear(3, 3).to("sim:1")(torch.ones(1, 3, device="sim:1"))
        assert answer.dtype is torch.bfloat16 and answer.softmax(-1).dtype is torch.float32


def test_modules_move_and_copy(device: torch.device) -> None:
    module = nn.Linear(3, 3)
    tied = nn.ModuleList([module, copy.deepcopy(module)])
    tied[1].weight = module.weight
    tied.to(device)
    assert tied[1].weight is tied[0].weight and tied[0].weight.device == device
    again = copy.deepcopy(tied)
    assert again[0].weight.device == device and again[0].weight.data_ptr() != tied[0].weight.data_ptr()
    assert torch.equal(again.to("cpu")[0].weight, tied[0].weight.cpu())

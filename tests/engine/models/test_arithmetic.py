import pytest
import torch

from core.engine.models import accelerator
from core.engine.models.precision import bfloat16_matmul, fast_arithmetic, forward_dtype

CPU = torch.device("cpu")


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool | str]:
    """What the processor can do."""
    found: dict[str, bool | str] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    return found


@pytest.mark.parametrize("processor", [{"amx_bf16": True}, {"cpu_name": "AMD EPYC", "avx512_bf16": True}])
def test_bfloat16_is_taken_where_it_is_multiplied_faster(
    capabilities: dict[str, bool | str], processor: dict[str, bool | str]
) -> None:
    capabilities |= processor
    assert forward_dtype("auto", torch.float32, CPU) is torch.bfloat16
    with bfloat16_matmul(CPU):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"


def test_instructions_alone_are_slower_on_others_and_not_used(capabilities: dict[str, bool | str]) -> None:
    capabilities |= {"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_bf16": True}
    assert forward_dtype("auto", torch.float32, CPU) is torch.float32
    with bfloat16_matmul(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_onednn_is_taken_on_amd_s_processors_alone(
    capabilities: dict[str, bool | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = False
    monkeypatch.setattr(accelerator, "_onednn_rounds_factors", lambda: rounds)
    capabilities |= {"cpu_name": "Intel(R) Xeon(R) Processor", "amx_bf16": True}
    with fast_arithmetic(CPU):
        assert torch.get_float32_matmul_precision() == "highest"
    capabilities |= {"cpu_name": "AMD EPYC", "amx_bf16": False, "avx512_bf16": True}
    with fast_arithmetic(CPU):
        assert torch.get_float32_matmul_precision() == "medium"
    rounds = True
    with fast_arithmetic(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("outputs", "inputs", "rows"), [(576, 576, 512), (1536, 576, 64), (100, 1031, 333), (1, 64, 7)]
)
def test_fast_products_of_float32_are_float32(outputs: int, inputs: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight_OI, X_NI = (torch.randn(size, inputs, generator=generator) for size in (outputs, rows))
    with fast_arithmetic(CPU):
        product_NO = X_NI @ weight_OI.T
    exact_NO = X_NI.double() @ weight_OI.double().T
    assert (product_NO - exact_NO).norm() <= 2e-6 * exact_NO.norm()

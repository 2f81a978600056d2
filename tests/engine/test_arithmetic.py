import pytest
import torch

from core.models.arithmetic import forward_dtype, rounded_products

CPU = torch.device("cpu")


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What the processor can do."""
    found: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    return found


def test_bfloat16_is_taken_where_there_are_matrix_units_for_it(capabilities: dict[str, bool]) -> None:
    capabilities["amx_bf16"] = True
    assert forward_dtype("auto", torch.float32, CPU) is torch.bfloat16
    with rounded_products():
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"


def test_instructions_alone_are_slower_than_float32_and_not_used(capabilities: dict[str, bool]) -> None:
    capabilities["avx512_bf16"] = True
    assert forward_dtype("auto", torch.float32, CPU) is torch.float32
    with rounded_products():
        assert torch.cuda.is_initialized() or torch.get_float32_matmul_precision() == "highest"


def test_what_is_asked_is_taken_whatever_there_is(capabilities: dict[str, bool]) -> None:
    assert forward_dtype("bfloat16", torch.float32, CPU) is torch.bfloat16
    assert forward_dtype("auto", torch.float16, CPU) is torch.float16

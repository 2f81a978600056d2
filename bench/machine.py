"""The machine the figures belong to, and what its matrix products alone must take."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from core.catalogue.families import FAMILIES
from core.catalogue.model_folder import ModelDescription


def threads_available() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> str:
    """Processor model, cores and operating system, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {threads_available()} cores, {memory:.0f} GiB, {platform.system()}"


@dataclass(frozen=True)
class Products:
    """Floating-point operations of a method's matrix products: calibration forward, and Gram matrices XᵀX."""

    forward: int
    gram: int

    def seconds(self, rates: dict[str, float], forward_dtype: str) -> float:
        """At measured rates; the Gram matrices are float32 whatever the forward is."""
        return self.forward / rates[forward_dtype] + self.gram / rates["float32"]


def products(model: ModelDescription, method: str, tokens: int) -> Products | None:
    """The products nobody gets around: each token through each pruned linear once, and for sparsegpt one XᵀX for each
    tensor that linears read, in full. None for magnitude, which needs no product. Attention, the solve and everything
    elementwise come on top, so that no run reaches the floor."""
    if method == "magnitude":
        return None
    forward = 2 * tokens * sum(linear.numel for linear in model.linears)
    if method != "sparsegpt":
        return Products(forward, 0)
    first_readers = {group[0] for group in FAMILIES[model.architecture].inputs}
    gram = sum(linear.in_features**2 for linear in model.linears if linear.matches(first_readers))
    return Products(forward, 2 * tokens * gram)

"""The machine the figures belong to, and what its matrix products alone must take."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from core.engine.architectures.description import ModelDescription
from core.engine.latency.machine import processor_name


def threads_available() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> str:
    """Processor model, cores and operating system, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{processor_name()}, {threads_available()} cores, {memory:.0f} GiB, {platform.system()}"


@dataclass(frozen=True)
class Products:
    """Floating-point operations of a method's matrix products: calibration forward, and one triangle of each XᵀX."""

    forward: int
    gram: int

    def seconds(self, rates: Mapping[str, float], forward_dtype: str) -> float:
        """At measured rates. After a forward in bfloat16 the inputs are bfloat16 values: products of those are as exact
        in that dtype as in float32, so the faster of the two counts.
        """
        gram_rate = rates["float32"] if forward_dtype == "float32" else max(rates["float32"], rates[forward_dtype])
        return self.forward / rates[forward_dtype] + self.gram / gram_rate


def products(model: ModelDescription, method: str, tokens: int) -> Products | None:
    """The products nobody gets around: each token through each pruned linear once, and for sparsegpt one XᵀX for each
    tensor that linears read; it is symmetric, so one triangle. None for magnitude, which needs no product. Attention,
    the solve and everything elementwise come on top, so that no run reaches the floor.
    """
    if method == "magnitude":
        return None
    forward = 2 * tokens * sum(linear.numel for linear in model.linears)
    if method != "sparsegpt":
        return Products(forward, 0)
    first_readers = {group[0] for group in model.known_as.inputs}
    read = (linear.in_features for linear in model.linears if linear.matches(first_readers))
    return Products(forward, tokens * sum(width * (width + 1) for width in read))

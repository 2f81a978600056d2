"""Request of a job: the part of its body that decides which weights go, before and after the check against a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.device_kinds import CPU
from core.engine.architectures.description import Description
from core.engine.architectures.unit_counts import CostLimit
from core.engine.cuts import Cut, Removal
from core.engine.options.axes import MethodParameters
from core.engine.options.patterns import parse_pattern
from core.engine.removals.registry import REMOVALS
from core.engine.removals.widths import width_divisor
from core.methods.method_info import Variant
from core.methods.registry import get_method
from secateur_wire.job_body import Layout, Target


@dataclass(frozen=True)
class UnresolvedRequest:
    """Request that was not yet checked against a model; None stands for the default.

    `at_least` means that no less than `sparsity` may go. `is_calibrated` means that the job has calibration text: the
    remaining weights are then refitted to it, unless the parameters say otherwise. `leaves_out_zeros` means that the
    artifact's files do not store zeros. `exports` are the types of the files that are added, by form.
    """

    method: str
    pattern: str | None = None
    sparsity: float | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    target: Target | None = None
    layout: Layout | None = None
    at_least: bool = False
    is_calibrated: bool = False
    leaves_out_zeros: bool = False
    exports: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResolvedRequest:
    """Request that fits its model, with all defaults filled in.

    `layout` is the layout of the resulting model. `at_least` means that the sparsity comes from a target: where groups
    are removed, no less than it may go; otherwise the nearest possible sparsity is used. Where a limit of cost
    decides what goes, the sparsity is None, and `costs` is set once the costs are known.
    """

    method: str
    pattern: str
    sparsity: float | None
    parameters: MethodParameters
    layout: Layout = "uniform"
    at_least: bool = False
    costs: CostLimit | None = None

    @property
    def variant(self) -> Variant:
        return get_method(self.method).variant(self.pattern)

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return self.variant.removal

    @property
    def pass_removal(self) -> Removal:
        """Return the kind of removal whose pass carries out the request; without one, a pass that keeps all shapes."""
        return self.removal or REMOVALS["weights"]

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model go, so that it gets smaller."""
        return self.variant.shrinks

    @property
    def leaves_alignment_open(self) -> bool:
        """Return whether layers get narrower and the options leave the divisor of their widths open."""
        return self.removal is not None and self.removal.narrows and width_divisor(self.parameters) is None

    def cut(self, description: Description, *, round_to: int = CPU.round_to, sparsity: float | None = None) -> Cut:
        """Return the cut that the request's removal needs; `sparsity` replaces the request's own."""
        return Cut(
            description,
            self.parameters,
            (self.sparsity or 0.0) if sparsity is None else sparsity,
            parse_pattern(self.pattern),
            self.layout,
            self.at_least,
            round_to,
            self.costs,
        )


def is_chosen_by_cost(target: Target | None, parameters: MethodParameters, layout: Layout) -> bool:
    """Return True if what goes follows from costs of parts and their limit, and not from a sparsity.

    That is so for memory, for times in a named engine, and for times with layers of different shapes, where the method
    knows what each part is worth.
    """
    if target is None or not parameters.chooses_by_cost:
        return False
    return target.memory_bytes is not None or (target.is_time and (target.engine is not None or layout == "per_layer"))

"""Request of a job, as far as it decides which weights go: as a job body has it, and as it fits its model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.device_kinds import CPU
from core.engine.architectures.describe import Description
from core.engine.architectures.heterogeneous import Layout
from core.engine.cuts.cut import Cut
from core.engine.cuts.removal import Removal
from core.engine.options.base import MethodParameters
from core.engine.options.patterns import parse_pattern
from core.engine.removals.registry import REMOVALS
from core.methods.method_info import Variant
from core.methods.registry import get_method
from secateur_wire.job_body import Target


@dataclass(frozen=True)
class UnresolvedRequest:
    """Request that was not checked against a model yet; what is None gets its default.

    With `at_least` no less than `sparsity` goes. `is_calibrated`: the job has calibration text, to which what is left
    of a cut is refitted unless the parameters say otherwise. `leaves_out_zeros` says so of the artifact's files.
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


@dataclass(frozen=True)
class ResolvedRequest:
    """Request that fits its model, with its defaults filled in.

    `layout` is that of the model that comes out. With `at_least` the sparsity stands for a target, and where groups are
    removed no less of it goes; else the nearest there is. `is_timed`: the sparsity is, or is to be, that of a shape
    that was timed.
    """

    method: str
    pattern: str
    sparsity: float | None
    parameters: MethodParameters
    layout: Layout = "uniform"
    at_least: bool = False
    is_timed: bool = False

    @property
    def variant(self) -> Variant:
        return get_method(self.method).variant(self.pattern)

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return self.variant.removal

    @property
    def carried_out_as(self) -> Removal:
        """Return the kind of removal whose pass it goes through; where nothing goes, the one that keeps all shapes."""
        return self.removal or REMOVALS["weights"]

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model go, so that it gets smaller."""
        return self.variant.shrinks

    @property
    def leaves_alignment_open(self) -> bool:
        """Return whether layers get narrower, and the options do not say what divides their widths."""
        return self.removal is not None and self.removal.narrows and self.removal.alignment(self.parameters) is None

    def cut(self, description: Description, *, round_to: int = CPU.round_to, sparsity: float | None = None) -> Cut:
        """Return what its removal has to know; `sparsity` takes the place of its own."""
        return Cut(
            description,
            self.parameters,
            (self.sparsity or 0.0) if sparsity is None else sparsity,
            parse_pattern(self.pattern),
            self.layout,
            self.at_least,
            self.is_timed,
            round_to,
        )

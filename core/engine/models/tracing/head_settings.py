"""Settings of a config that count heads, found by what they change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.architecture import HEAD_DIM_KEY, HEADS_KEY, KV_HEADS_KEY
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.models.tracing.differential import Differential
from core.engine.models.tracing.unit_axes import BlockCut, unit_axes
from core.engine.models.tracing.unit_layout import Units

FOLLOWS: Final = "the size of a head follows from other settings, so that no head can go"


@dataclass(frozen=True)
class HeadSettings:
    """Names of settings: the number of heads, that of key and value heads, and the size of a head.

    Where there are no fewer key and value heads their number is that of the heads. `divide_hidden`: the config insists
    that the heads divide the hidden size.
    """

    heads: str
    kv_heads: str
    head_dim: str
    divide_hidden: bool

    @property
    def config_keys(self) -> dict[str, str]:
        """Return the names that differ from the common ones, by these."""
        names = {HEADS_KEY: self.heads, KV_HEADS_KEY: self.kv_heads, HEAD_DIM_KEY: self.head_dim}
        return {common: name for common, name in names.items() if name != common}


def find_head_settings(
    cut: BlockCut, units: Units, differential: Differential, linears: Sequence[str]
) -> tuple[HeadSettings, tuple[UnitAxis, ...]] | str:
    """Return the settings that count the heads of some blocks and the axes that one unit more has; or why none do."""
    head_dim, beyond = _head_dim_key(cut, units, differential)
    if head_dim is None:
        return FOLLOWS if beyond is None else f"the setting of its head size changes {beyond} too"
    reasons = []
    for heads, kv_heads in _counting(units, differential):
        counts = {heads: (units.heads, units.group)} | ({} if kv_heads is None else {kv_heads: (units.units, 1)})
        for number in (1, units.units):
            changes = differential.changes(_more(counts, number) | {head_dim: units.head_width})
            if isinstance(changes, str):
                reasons += [f"{heads}: {changes}"] if number == units.units else []
                continue
            if not cut.reading(number) <= changes:
                reasons.insert(0, f"{heads}: it does not say how much {units.reader} reads")
                break
            axes = unit_axes(cut, changes, number, differential, linears)
            if isinstance(axes, str):
                reasons.append(f"{heads}: {axes}")
                break
            hidden = differential.config.hidden_size
            odd = next(each for each in range(1, hidden + 2) if hidden % (units.heads + each * units.group))
            unlike = differential.changes(_more(counts, odd) | {head_dim: units.head_width})
            return HeadSettings(heads, kv_heads or heads, head_dim, isinstance(unlike, str)), axes
    return reasons[0] if reasons else f"no setting of its config is the number of heads that {units.reader} reads"


def _more(counts: Mapping[str, tuple[int, int]], number: int) -> dict[str, int]:
    """Return the settings of so many units more, from their values and what a unit adds to each."""
    return {key: value + number * step for key, (value, step) in counts.items()}


def _counting(units: Units, differential: Differential) -> Iterator[tuple[str, str | None]]:
    """Yield the settings that may be the number of heads and that of key and value heads, the likeliest first."""
    named = {name: value for name, value in differential.integers.items() if "head" in name}
    heads = sorted(
        (name for name, value in named.items() if value == units.heads), key=lambda name: "kv" in name or "key" in name
    )
    keys = [name for name, value in named.items() if value == units.units]
    yield from ((each, key) for each in heads for key in keys if key != each)
    if units.group == 1:
        yield from ((each, None) for each in heads)


def _head_dim_key(cut: BlockCut, units: Units, differential: Differential) -> tuple[str | None, str | None]:
    """Return the setting that is the size of a head, by its effect; it may be one that the config does not name.

    Where each that has this effect changes what is beyond the blocks of the cut, one of these is named in its place.
    """
    beyond: str | None = None
    named = [
        name for name, value in differential.integers.items() if value == units.head_width and name != HEAD_DIM_KEY
    ]
    for key in (HEAD_DIM_KEY, *named):
        for more in (2, units.head_width):
            changes = differential.changes({key: units.head_width + more})
            reading = {(name, side, units.heads * more) for name, side, _ in cut.reading(1)}
            if isinstance(changes, frozenset) and reading <= changes:
                others = sorted(name for name, _, _ in changes if not name.startswith(cut.prefixes))
                if not others:
                    return key, None
                beyond = beyond or others[0]
    return None, beyond

"""Hypotheses about removable units: which settings count them, and in which order their rows are stored.

The model's own constructor tells what must shrink along with a unit: a setting is changed, and the shapes are compared.
In which order a tensor has the rows of several parts is guessed from a few known orders; the self-test judges.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from core.engine.architectures.architecture import (
    COUNT_KEY,
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    Architecture,
    UnitAxis,
)
from core.engine.discovery.channel_hypotheses import channels_of_mixture, channels_of_sublayers
from core.engine.discovery.configuration import Settings
from core.engine.discovery.differential import Differential, one_line
from core.engine.discovery.readers import (
    CHANNELS,
    HEADS,
    Hypothesis,
    Reader,
    Rows,
    count_blocks,
    in_order,
    outputs_by_size,
    owner,
    times,
)

_FOLLOWS: Final = "the size of a head follows from other settings, so no head can be removed"
_OF_KEYS: Final = re.compile(r"(?<![a-z])(k|v|kv|key|value)(?![a-z])")
"""Names of layers that give keys or values, needed only where each head has its own keys."""


def hypotheses(
    kind: str, architecture: Architecture, small: Differential, real: Differential
) -> Iterator[Hypothesis | str]:
    """Yield hypotheses about units of a kind, the most likely first, among the reasons why others do not fit.

    `small` belongs to the config of a small copy, `real` to the config with its own widths. The channels of a mixture
    are those of its experts.
    """
    try:
        if kind == HEADS:
            yield from _heads(architecture, small, real)
        elif architecture.experts is not None:
            yield from channels_of_mixture(architecture, architecture.experts, small, real)
        else:
            yield from channels_of_sublayers(architecture, small, real)
    except Exception as error:  # the code of any type may fail in any way, and weights can still be pruned
        yield f"its units cannot be discovered: {type(error).__name__}: {one_line(error)}"


def with_units(architecture: Architecture, small: Settings, real: Settings) -> Architecture:
    """Return an architecture by the first hypothesis about each kind of unit, or the reason against the kind."""
    differentials = Differential(small), Differential(real)
    for kind in (CHANNELS, HEADS):
        reasons = []
        for each in hypotheses(kind, architecture, *differentials):
            if isinstance(each, Hypothesis):
                architecture = each.applied(architecture)
                break
            reasons.append(each)
        else:
            architecture = replace(architecture, refused={**architecture.refused, kind: reasons[-1]})
    return architecture


def with_layers_key(architecture: Architecture, small: Settings) -> Architecture:
    """Return the architecture with the setting that counts its blocks, where that differs from the common name."""
    differential = Differential(small)
    count = count_blocks(architecture, differential)
    known = architecture.config_keys.get(COUNT_KEY, COUNT_KEY)
    others = [name for name, value in differential.integers.items() if value == count and "layer" in name]
    for key in (known, *others):
        longer = differential.with_settings({key: count + 1})
        if longer is not None and count_blocks(architecture, longer) == count + 1:
            kept = {common: own for common, own in architecture.config_keys.items() if common != COUNT_KEY}
            return replace(architecture, config_keys=kept if key == COUNT_KEY else {**kept, COUNT_KEY: key})
    return architecture


@dataclass(frozen=True)
class _HeadSettings:
    """Names of the settings for the numbers of heads and of key and value heads, and for the size of a head."""

    heads: str
    kv_heads: str | None
    head_dim: str

    @property
    def config_keys(self) -> dict[str, str]:
        """Return the names that differ from the common ones, by the common names."""
        names = {HEADS_KEY: self.heads, KV_HEADS_KEY: self.kv_heads or self.heads, HEAD_DIM_KEY: self.head_dim}
        return {common: name for common, name in names.items() if name != common}


@dataclass(frozen=True)
class _Sizes:
    """Numbers of heads and of key and value heads in a config, and the size of a head."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    def settings(self, names: _HeadSettings, heads: int, kv_heads: int) -> dict[str, int]:
        """Return settings with other numbers of heads of the same size."""
        counts = {names.heads: heads} | ({} if names.kv_heads is None else {names.kv_heads: kv_heads})
        return counts | {names.head_dim: self.head_dim}


def _heads(architecture: Architecture, small: Differential, real: Differential) -> Iterator[Hypothesis | str]:
    yield "no linear layer of its blocks reads heads that can be removed one by one"
    for output in outputs_by_size(architecture, small):
        readers = [Reader.of(architecture, output, each) for each in (small, real)]
        if readers[0] is None or readers[1] is None:
            continue
        for settings in _head_settings(readers[0], small):
            if isinstance(settings, str):
                yield settings
                continue
            answers = [
                _rows_of_heads(reader, settings, each)
                for reader, each in zip(readers, (small, real), strict=True)
                if reader
            ]
            reason = next((each for each in answers if isinstance(each, str)), None)
            usual: list[tuple[UnitAxis, ...] | str] = []
            for is_usual in () if reason else (True, False):
                axes = [
                    _axes_of_heads(architecture, readers[0], *each, is_usual)
                    for each in answers
                    if not isinstance(each, str)
                ]
                reason = next((each for each in axes if isinstance(each, str)), None)
                if reason is None and (is_usual or axes != usual):
                    facts = {"heads_divide_hidden": _divides_hidden(readers[0], settings, small)}
                    yield Hypothesis(HEADS, output, axes[0], axes[1], facts, settings.config_keys)  # type: ignore[arg-type]
                usual = axes
            if reason is not None:
                yield f"{settings.heads}: {reason}"


def _head_settings(reader: Reader, differential: Differential) -> Iterator[_HeadSettings | str]:
    named = {name: value for name, value in differential.integers.items() if "head" in name and value > 0}
    of_keys = {name: "kv" in name or "key" in name for name in named}
    for heads in sorted(named, key=lambda name: of_keys[name]):
        if named[heads] < 2 or reader.features % named[heads] or heads == HEAD_DIM_KEY:
            continue
        head_dim, reason = _head_dim_key(reader, named[heads], differential)
        if head_dim is None:
            if reason is not None:
                yield reason
            continue
        keys: list[str | None] = [
            name for name in named if of_keys[name] and name not in (heads, head_dim) and not named[heads] % named[name]
        ]
        yield from (_HeadSettings(heads, each, head_dim) for each in keys or [None])


def _head_dim_key(reader: Reader, heads: int, differential: Differential) -> tuple[str | None, str | None]:
    """Return the setting for the size of a head, found by its effect, or the reason why there is none."""
    width, reason = reader.features // heads, _FOLLOWS
    named = [name for name, value in differential.integers.items() if value == width and name != HEAD_DIM_KEY]
    for key in (HEAD_DIM_KEY, *named):
        for more in (2, width):
            changes = differential.changes({key: width + more})
            if isinstance(changes, frozenset) and all(
                (prefix + reader.reading[0], reader.side, heads * more) in changes for prefix in reader.prefixes
            ):
                others = sorted(name for name, _, _ in changes if not name.startswith(reader.prefixes))
                if not others:
                    return key, None
                reason = f"the setting of its head size changes {others[0]} too"
    return None, reason


def _rows_of_heads(reader: Reader, names: _HeadSettings, differential: Differential) -> tuple[Rows, Rows, _Sizes] | str:
    """Return the rows of one key and value head with its group, those of one more head in a group, and the sizes."""
    heads = getattr(differential.config, names.heads, None)
    kv_heads = heads if names.kv_heads is None else getattr(differential.config, names.kv_heads, None)
    if (
        type(heads) is not int
        or type(kv_heads) is not int
        or kv_heads < 1
        or heads % kv_heads
        or reader.features % heads
    ):
        return "its config does not give the number of heads"
    sizes = _Sizes(heads, kv_heads, reader.features // heads)
    rows: Rows | str = "no other number of heads is accepted"
    for more in (1, kv_heads):
        settings = sizes.settings(names, heads + more * sizes.group, kv_heads + more)
        rows = reader.rows(differential.changes(settings), more)
        if not isinstance(rows, str):
            break
    if isinstance(rows, str):
        return rows
    if rows.get(reader.reading) != sizes.group * sizes.head_dim:
        return f"it does not say how much {reader.output} reads"
    fewer = differential.changes(sizes.settings(names, heads // 2, max(kv_heads // 2, 1)))
    if isinstance(fewer, str):
        return fewer
    lost = (heads // 2 - heads) * sizes.head_dim
    if any((prefix + reader.reading[0], reader.side, lost) not in fewer for prefix in reader.prefixes):
        return f"{names.heads} does not determine the size of the input of {reader.output}"
    for more in (1, sizes.group):
        queries = reader.rows(
            differential.changes(sizes.settings(names, heads + more * kv_heads, kv_heads)), more * kv_heads
        )
        if not isinstance(queries, str) and queries.keys() < rows.keys():
            return rows, queries, sizes
    return rows, {}, sizes


def _divides_hidden(reader: Reader, names: _HeadSettings, differential: Differential) -> bool:
    """Return True if a config requires that the number of heads divides the hidden size."""
    rows, hidden = _rows_of_heads(reader, names, differential), differential.config.hidden_size
    assert not isinstance(rows, str)
    sizes = rows[-1]
    odd = next(each for each in range(1, hidden + 2) if hidden % (sizes.heads + each * sizes.group))
    settings = sizes.settings(names, sizes.heads + odd * sizes.group, sizes.kv_heads + odd)
    return isinstance(differential.changes(settings), str)


def _axes_of_heads(
    architecture: Architecture, reader: Reader | None, rows: Rows, queries: Rows, sizes: _Sizes, is_usual: bool
) -> tuple[UnitAxis, ...] | str:
    """Return the axes of heads; `queries` are the rows of a query head, empty where they are not known."""
    assert reader is not None
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), count in rows.items():
        module, last = owner(name)
        if (name, dimension) == reader.reading:
            axis = UnitAxis(module, "in", ("query",))
        else:
            of_query = sizes.group * queries.get((name, dimension), 0) if queries else _guessed(module, count, sizes)
            is_linear = module in architecture.linears
            runs = _runs(of_query, count - of_query, sizes, is_usual)
            if dimension == (reader.side if is_linear and last == "weight" else 1) or (not is_linear and len(runs) > 1):
                return f"this setting also changes {name}"
            axis = UnitAxis(module, "out", runs)
        if axes.setdefault(module, axis) != axis:
            return f"it changes {name} in two ways"
    return in_order(axes, architecture)


def _guessed(module: str, count: int, sizes: _Sizes) -> int:
    """Return the rows of queries where each head has its own keys: those that no name of keys says to be theirs."""
    if _OF_KEYS.search(module.rpartition(".")[2]):
        return 0
    fused = (sizes.group + 2) * sizes.head_dim
    return sizes.group * sizes.head_dim if count == fused else count


def _runs(of_query: int, of_key: int, sizes: _Sizes, is_usual: bool) -> tuple[str, ...]:
    """Return the runs of a layer's rows: queries, then keys and values.

    Usually a head's parts lie side by side where a layer has only queries or only keys and values; and keys come before
    values where it has all three.
    """
    runs: list[str] = []
    for rows, heads, features, one in ((of_query, sizes.group, "query", "head"), (of_key, 1, "key", "kv_head")):
        if rows:
            each, rest = divmod(rows // heads, sizes.head_dim)
            is_single = (of_query and features == "key") == is_usual
            if rest:
                runs.append(times(one, rows // heads))
            else:
                runs += [features] * each if is_single else [times(features, each)]
    return tuple(runs)

"""Choice of the tokens that stay: those that the given texts need most, and those that other texts need most.

A token's uses in the given texts are counted (`Tokenizer.uses`). Its uses in other texts of the same scripts are
estimated by its rank r in the tokenizer's training, as Zipf's law has it: in proportion to 1 / (r + 10). Tokens stay in
the order of their share of the uses in the given texts plus a quarter of their estimated share in others; tokens of
other scripts count with the given texts alone. The estimate stands for runs of blanks, punctuation and common words
that the given texts do not have, and it is better than a count of one or two for the rest of texts like these.
docs/vocabulary.md compares it with other orders.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.engine.removals.vocabulary import too_few_tokens
from core.engine.vocabulary.counts import Counts, read_scripts, scripts_of, scripts_of_characters, used_scripts
from core.engine.vocabulary.tokenizer import Tokenizer, refusal
from secateur_wire.errors import InvalidRequest

_OTHER_TEXTS: Final = 0.25
"""Weight of other texts than the given ones, whose weight is 1."""
_FLATTENING: Final = 10
"""Rank that Zipf's law is flattened by: the first ranks are about as frequent as one another."""
_CURVE_POINTS: Final = 64


@dataclass(frozen=True)
class KeptTokens:
    """Tokens that stay.

    `ids` ascend and are closed. `used` is the number of different tokens of the texts; `least` the number of tokens
    that stay in any case. `coverage` has the share of the texts' tokens that are kept, by the number of kept tokens:
    the numbers ascend from `least` to the whole vocabulary. `covered` is that share for `ids`. `scripts` are those by
    which the rest was filled; `lacking` those of the texts for which the vocabulary has no token but bytes.
    """

    ids: tuple[int, ...]
    used: int
    least: int
    covered: float
    coverage: tuple[tuple[int, float], ...]
    scripts: tuple[str, ...]
    lacking: tuple[str, ...]


def choose_tokens(
    tokenizer: Tokenizer,
    counts: Counts,
    *,
    tokens: int | None,
    keep: Sequence[str] = (),
    scripts: Sequence[str] | None = None,
    required: Collection[int] = (),
    round_to: int = 1,
) -> KeptTokens:
    """Choose the tokens that stay; their number is a multiple of `round_to`, unless the vocabulary has fewer.

    `tokens` is their number, which is rounded up; None keeps all tokens of the texts. `keep` are strings whose tokens
    stay, at the beginning of a text and after a space; `required` are further ids that stay. `scripts` replaces the
    scripts of the texts. Raises InvalidRequest for a number below what must stay, naming the least, or above the
    vocabulary, and for a script that the vocabulary lacks.
    """
    named = {number for text in keep for form in (text, f" {text}") for number in tokenizer.encode(form)}
    without_token = sorted({*required} - tokenizer.tokens.keys())
    if without_token:
        raise refusal(f"has no token of the id {without_token[0]}, which the model's config names")
    must = tokenizer.closure({*tokenizer.required, *named, *required})
    by_id = {number: int(counts.by_id[number]) for number in np.flatnonzero(counts.by_id).tolist()}
    spelled = {number: tokenizer.spelled(number) for number in tokenizer.tokens if number not in tokenizer.added}
    known = frozenset().union(*map(scripts_of_characters, spelled.values()))
    wanted = used_scripts(counts.scripts) if scripts is None else read_scripts(scripts)
    lacking = tuple(name for name in wanted if name not in known)
    if scripts is not None and lacking:
        raise InvalidRequest(
            f"scripts: the vocabulary has no token of {', '.join(lacking)}; it has {', '.join(sorted(known))}",
            param="scripts",
        )
    if tokens is None:
        begun = tokenizer.closure({*must, *by_id})
        wanted_size = len(begun)
    else:
        begun, wanted_size = must, tokens
    if wanted_size < len(must):
        raise too_few_tokens(wanted_size, len(must), "tokens")
    if wanted_size > tokenizer.size:
        raise InvalidRequest(
            f"tokens: {wanted_size:,} is more than the {tokenizer.size:,} tokens of the vocabulary", param="tokens"
        )
    size = min(-(-wanted_size // round_to) * round_to, tokenizer.size)
    uses = tokenizer.uses(by_id)
    others = {number for number, each in spelled.items() if not scripts_of(each) <= {*wanted}}
    order = _order(tokenizer, {number: uses.get(number, 0) for number in tokenizer.tokens.keys() - must}, others)
    ids = frozenset(_added(tokenizer, begun, order, size))
    total = max(counts.tokens, 1)
    return KeptTokens(
        ids=tuple(sorted(ids)),
        used=len(by_id),
        least=len(must),
        covered=sum(by_id.get(number, 0) for number in ids) / total,
        coverage=tuple(_curve(tokenizer, must, order, by_id, total)),
        scripts=wanted,
        lacking=lacking,
    )


def _order(tokenizer: Tokenizer, uses: Mapping[int, int], others: Collection[int]) -> list[int]:
    """Return the tokens of `uses`, first those that are needed most, last those that no text has.

    Tokens of `others` have other scripts than the texts.
    """
    ranks = {number: tokenizer.rank(number) for number in uses}
    estimates = {number: 1 / (rank + _FLATTENING) for number, rank in ranks.items() if number not in others}
    all_uses = sum(uses.values()) or 1
    all_estimates = sum(estimates.values()) or 1

    def key(number: int) -> tuple[bool, float, int, int]:
        share = uses[number] / all_uses + _OTHER_TEXTS * estimates.get(number, 0) / all_estimates
        return (not tokenizer.is_reachable(number), -share, ranks[number], number)

    return sorted(uses, key=key)


def _added(tokenizer: Tokenizer, begun: Iterable[int], order: Iterable[int], size: int) -> set[int]:
    """Return the tokens with which one begins and those of the order, each with its closure, up to exactly `size`."""
    kept = set(begun)
    for number in order:
        if len(kept) >= size:
            break
        if number not in kept:
            new = tokenizer.closure((number,)) - kept
            if len(kept) + len(new) <= size:
                kept |= new
    return kept


def _curve(
    tokenizer: Tokenizer, begun: Iterable[int], order: Sequence[int], by_id: Mapping[int, int], total: int
) -> Iterator[tuple[int, float]]:
    """Yield numbers of kept tokens, and the share of the texts' tokens that they are."""
    kept = set(begun)
    covered = sum(by_id.get(number, 0) for number in kept)
    marks = iter(np.linspace(len(kept), tokenizer.size, _CURVE_POINTS).astype(int).tolist())
    mark = next(marks)
    for number in order:
        while mark is not None and len(kept) >= mark:
            yield len(kept), covered / total
            mark = next((each for each in marks if each > len(kept)), None)
        if number not in kept:
            new = tokenizer.closure((number,)) - kept
            covered += sum(by_id.get(each, 0) for each in new)
            kept |= new
    if mark is not None:
        yield len(kept), covered / total

"""Rows of the vocabulary in plans: the tokens that a team's text does not use cost nothing to remove."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import Description
from core.engine.datasets.formats import CHAT_FORMATS
from core.engine.removals.vocabulary import reduced_description, vocabulary_size
from core.measurements.reader import measurements
from core.pipeline.messages import CountedTokens
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.dataset import row_facts
from core.service.jobs.resolution.model import ResolvedModel
from core.service.plans.job_bodies import CALIBRATION_WORDS, choose_set, fitting_sets, summary_of
from core.service.registry.service import find_row
from core.service.registry.tables import DatasetRow
from core.service.sources.references import FileText, StoredText
from core.service.token_counts import known_count
from secateur_wire.datasets import Dataset
from secateur_wire.errors import SecateurError, UnusableModel
from secateur_wire.plans import PlanBody, PlanChoice, PlanFigure

FIRST_SHARE: Final = 0.1
"""Smallest share of the parameters for which a plan removes tokens before anything else."""
LEAST_SHARE: Final = 0.05
"""Smallest share of the parameters for which a plan removes tokens beside a method."""
AUTO: Final = "auto"
"""Value of `tokens` with which all tokens stay that the texts use."""
_GOALS: Final = ("speed", "size")


@dataclass(frozen=True)
class UnusedTokens:
    """Tokens of a model that a registered text does not use.

    `tokens` is the size of the vocabulary, and `most` its share of the model's parameters, which is a bound of what can
    go. `counted` is None where the tokens are not counted yet, or where `refusal` says why none can go. `share` of the
    model's parameters goes with the unused tokens, 0 where that is not known.
    """

    text: str
    tokens: int
    most: float
    counted: CountedTokens | None
    refusal: str | None = None
    share: float = 0.0

    @property
    def is_first(self) -> bool:
        """Return whether so much goes that it comes before everything else."""
        return self.share >= FIRST_SHARE

    @property
    def kept(self) -> int | None:
        """Return the number of tokens that stay if a job removes the others beside its method; None if none go."""
        return None if self.counted is None or self.share < LEAST_SHARE else self.counted.kept

    @property
    def reason(self) -> str:
        """Return what is known of the tokens, in a sentence."""
        if self.refusal is not None:
            return f"no tokens can go: {self.refusal}"
        if self.counted is None:
            return (
                f"a worker counts the tokens of {self.text}, and until that is done it is not known which of the "
                f"{self.tokens:,} tokens it uses: they have {self.most:.0%} of the parameters, so less than that can "
                "go. Plan again in a minute"
            )
        used = f"{self.text} uses {self.counted.used:,} of {self.tokens:,} tokens"
        if self.kept is None:
            return f"{used}: the others have {self.share:.1%} of the parameters, too little to be worth it"
        return (
            f"{used}: {self.share:.0%} smaller at no loss on this text itself"
            f"{_of_other_text()}. Name all texts that matter in datasets, and words in keep"
        )

    def choice(self, *, keeps_quality: bool) -> PlanChoice:
        """Return the choice of a plan with another method, which may have to keep a quality."""
        if keeps_quality and self.kept is not None:
            why = f"{self.reason}. With keep_quality all tokens stay: what other text loses is not within it"
            return PlanChoice(field="vocabulary", value=None, reason=why)
        return PlanChoice(field="vocabulary", value=None if self.kept is None else {"tokens": AUTO}, reason=self.reason)

    def perplexity(self) -> PlanFigure | None:
        """Return what the removal of unused tokens is expected to cost; None where no measurement is shipped.

        The estimate is of text like that whose tokens were counted, and the high end of text of another kind.
        """
        rows = [each for each in measurements("vocabulary") if each.parameters.get("tokens") == AUTO]
        alike = [each.perplexity["in_domain"].mean for each in rows]
        others = [text.mean for each in rows for text in each.perplexity.values()]
        if not alike:
            return None
        names = " and ".join(sorted({each.model.name for each in rows}))
        return PlanFigure(
            estimate=max(alike),
            low=min(others),
            high=max(others),
            source="measurements",
            count=len(rows),
            basis=f"{len(rows)} measurement{'s' if len(rows) > 1 else ''} on {names}: about the middle on text like "
            "that whose tokens were counted, the high end on text of another kind, which takes more tokens",
        )


def unused_tokens(
    context: RequestContext, body: PlanBody, model: ResolvedModel, datasets: Sequence[Dataset]
) -> UnusedTokens | None:
    """Return what of a model's vocabulary the text of a plan does not use, and have it counted where it is not known.

    None where a plan has nothing to say of that: for other goals, without a registered text, and where the vocabulary
    has too few parameters.
    """
    description = model.description
    if body.goal not in _GOALS or not description.model_task.has_perplexity:
        return None
    row = _text(context, body, description, datasets)
    if row is None:
        return None
    try:
        size = vocabulary_size(description.language_model)
    except SecateurError:
        return None
    most = size.parameters / description.parameters
    if most < FIRST_SHARE:
        return None
    kind = FileText if row.prefix is None else StoredText
    reference = kind.model_validate(row_facts(row, "text_field"))
    try:
        counted = known_count(context.session, context.team_id, model.reference, size.tokens, reference)
    except UnusableModel as refused:
        return UnusedTokens(row.name, size.tokens, most, None, refused.message)
    if counted is None or counted.kept >= size.tokens:
        return UnusedTokens(row.name, size.tokens, most, counted)
    reduced = reduced_description(description.language_model, counted.kept)
    return UnusedTokens(row.name, size.tokens, most, counted, share=1 - reduced.parameters / description.parameters)


def _text(
    context: RequestContext, body: PlanBody, description: Description, datasets: Sequence[Dataset]
) -> DatasetRow | None:
    """Return the registered text that a plan calibrates on; None for conversations, which no template has rendered."""
    name = body.dataset
    if name is None:
        chosen = choose_set(fitting_sets(summary_of(description), datasets), CALIBRATION_WORDS)
        name = None if chosen is None else chosen.name
    row = None if name is None else find_row(context.session, DatasetRow, context.team_id, name)
    return None if row is None or row.images is not None or row.format in CHAT_FORMATS else row


def _of_other_text() -> str:
    """Return what text beyond the counted one was measured to lose; empty where no measurement is shipped."""
    rows = [each for each in measurements("vocabulary") if each.parameters.get("tokens") == AUTO]
    if not rows:
        return ""
    alike = max(each.perplexity["in_domain"].mean for each in rows)
    others = max(text.mean for each in rows for text in each.perplexity.values())
    return f", and {alike:.3g} times the perplexity was measured on other text of its kind, {others:.3g} on other kinds"

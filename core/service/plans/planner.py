"""Planner of one candidate: the amount, texts, recovery and form of a job, and its expected outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from core.engine.options.patterns import parse_pattern
from core.methods.registry import get_method
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.reports.equal_bytes import narrower_dtype, with_compared_types
from core.pipeline.reports.verdict import CLOSE_TO_DENSE
from core.service.jobs.equal_bytes import STORING
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.dataset import SELF
from core.service.jobs.resolution.job import ResolvedJob, resolve_job
from core.service.jobs.resolution.model import ResolvedModel
from core.service.jobs.schemas import JobBody
from core.service.plans import past_jobs, wording
from core.service.plans.amounts import PACKED, ArtifactForm, Scale, scale_for
from core.service.plans.answers import (
    NO_LONGER,
    EarlierQuestions,
    answer_estimates,
    earlier_questions,
    expected_answers,
    sentence_on_answers,
    unknown_answers,
)
from core.service.plans.assumptions import usual_amount
from core.service.plans.candidates import JobCandidate
from core.service.plans.evidence import Question
from core.service.plans.figures import (
    LossEstimates,
    bits_per_byte_figure,
    size_figure,
    split_by_band,
    time_figures,
)
from core.service.plans.job_bodies import Texts, choose_texts, summary_of
from core.service.plans.outcomes import recovery_of, setting_of, shipped_outcomes
from core.service.plans.vocabulary import AUTO, UnusedTokens
from core.service.plans.wording import best_alternative, choice, choose_recovery, form_choices
from secateur_wire.base import JsonObject
from secateur_wire.datasets import Dataset
from secateur_wire.errors import DoesNotFit, InvalidRequest, SecateurError
from secateur_wire.jobs import Estimate
from secateur_wire.metrics import Alternative
from secateur_wire.plans import FigureName, Plan, PlanBody, PlanChoice, PlanFigure, PlanPoint

POINTS_STEP: Final = 0.05
"""Step between the amounts whose outcomes are shown."""
_STEP: Final = 0.01


@dataclass(frozen=True)
class Planner:
    """Planner of one candidate for a request.

    `refusals` are the earlier candidates and the reasons against them, `alternatives` the copies of the model that need
    no pruning. `exports` are the additional files. `is_writing`: workers here can write such files. Only jobs
    that had ended by `until` are used; None: all ended jobs. `unused` are the tokens that the text does not use.
    """

    context: RequestContext
    body: PlanBody
    model: ResolvedModel
    candidate: JobCandidate
    refusals: Sequence[tuple[JobCandidate, SecateurError]]
    alternatives: Sequence[Alternative] = ()
    is_writing: bool = False
    exports: Sequence[JsonObject] = ()
    until: datetime | None = None
    unused: UnusedTokens | None = None

    def plan(self, datasets: Sequence[Dataset]) -> Plan:
        """Return the plan; raises the error that rules the candidate out."""
        body, candidate, description = self.body, self.candidate, self.model.description
        chosen = choose_texts(candidate, description, datasets, body.dataset)
        if body.dataset is not None and chosen.calibration is None:
            raise InvalidRequest(
                f"dataset: {candidate.method} reads no text and no images: leave it out", param="dataset"
            )
        if not get_method(candidate.method).prunes:
            return self._measuring(chosen)
        request = self._fits(chosen)
        if candidate.removes_tokens:
            return self._removing_tokens(request, chosen)
        scale, form = self._scale(request)
        earlier = earlier_questions(
            self.context.session, self.context.team_id, self.model.revision, datasets, chosen.calibrated_on, self.until
        )
        chosen = chosen.with_questions(earlier)
        losses, recovered, answers = self._loss_estimates(request, chosen, earlier)
        amount, why = self._amount(scale, losses, answers[None])
        recovery, recovery_choice = choose_recovery(
            description,
            losses.ratio(scale.share(amount)),
            chosen.calibrated_on,
            shrinks=request.shrinks,
            is_little=scale.sparsity(amount) + scale.token_share < wording.WORTH,
        )
        try:
            resolved, estimate = self._resolved(chosen, scale.sparsity(amount), recovery, form)
        except DoesNotFit:
            if recovery is None:
                raise
            recovery, recovery_choice = None, choice("recovery", None, "no worker has the memory to train this model")
            resolved, estimate = self._resolved(chosen, scale.sparsity(amount), None, form)
        is_measured = recovery_of(recovery) in recovered
        if is_measured:
            losses = recovered[str(recovery_of(recovery))]
        dense = past_jobs.dense_perplexity(
            self.context.session, self.context.team_id, self.model.revision, chosen.evaluated_on, self.until
        )
        expected = partial(self._expected, request, scale, losses, answers.get(recovery_of(recovery)), form, dense)
        figures, wide = split_by_band({**expected(amount), **time_figures(estimate)})
        job = self._job(chosen, scale.sparsity(amount), recovery, form)
        choices = [*self._choices(request, amount, why, chosen, form), recovery_choice]
        able = wording.makeable(self.alternatives, is_writing=self.is_writing)
        quantised = wording.better_at_equal_bytes(body.goal, description, figures, able)
        better = quantised or best_alternative(body.goal, description, figures, self.alternatives)
        sentences = [
            wording.summary(self.model.name, body.goal, resolved.recipe, amount, figures),
            wording.tokens_first(scale.token_share),
            sentence_on_answers(figures.get("answer_kl")),
            wording.quantise_only(figures, quantised)
            or wording.not_worth(scale.sparsity(amount) + scale.token_share, figures, better),
        ]
        return Plan(
            model=body.model,
            goal=body.goal,
            amount=amount,
            job=job,
            summary=" ".join(filter(None, sentences)),
            choices=choices,
            figures=figures,
            points=self._points(scale, expected, amount),
            answers=expected_answers(figures.get("answer_kl")),
            unknown=[
                *unknown_answers({**figures, **wide}.get("answer_kl"), datasets, earlier),
                *wording.unknown(
                    {**figures, **wide},
                    description,
                    resolved.recipe,
                    is_recovered=recovery is not None and not is_measured,
                ),
                *wording.too_wide(wide),
            ],
            warnings=estimate.warnings,
            alternatives=list(self.alternatives),
            instead=None if better is None else self._instead(better, chosen),
        )

    def _scale(self, request: ResolvedRequest) -> tuple[Scale, ArtifactForm]:
        """Return the scale of amounts, and the form of the artifact: a narrower dtype where size or speed is the goal.

        An amount of bytes that the dtype alone would remove is planned without it; where the added file alone would
        remove it, InvalidRequest is raised.
        """
        body, description = self.body, self.model.description
        form = ArtifactForm(
            dtype=narrower_dtype(description) if body.goal in ("speed", "size") else "keep", tokens=self._tokens
        )
        if body.goal == "size":
            form = replace(form, format=PACKED)
            if request.shrinks:
                form = replace(form, format="dense", file_bytes=self._file_bytes())
        scale = scale_for(body.goal, description, request, form)
        if body.goal == "size" and body.amount is not None and body.amount < scale.least:
            if form.file_bytes is not None:
                raise InvalidRequest(
                    f"amount: an added file of the dense model removes {scale.least:.4g} of the bytes without pruning",
                    param="amount",
                )
            form = replace(form, dtype="keep")
            scale = scale_for(body.goal, description, request, form)
        return scale, form

    def _file_bytes(self) -> int:
        """Return the bytes of the unpruned model in the added files of this plan; raises InvalidRequest if unknown."""
        for each in self.alternatives:
            if each.output.get("exports") == list(self.exports):
                return each.bytes
        raise InvalidRequest("output.exports: the size of this file is not known", param="output.exports")

    def _instead(self, better: Alternative, chosen: Texts) -> JsonObject | None:
        """Return the body of a job that makes an alternative, which workers here are known to be able to.

        An added file comes with the other types by which models are compared, unless a job measured those before.
        None where no job makes it.
        """
        able = wording.makeable(self.alternatives, is_writing=self.is_writing)
        offered = better if better in able else next(iter(able), None)
        if offered is None:
            return None
        output = with_compared_types(self.model.description, offered, self.alternatives)
        job: dict[str, Any] = {"model": self.body.model, "method": STORING[0]}
        if chosen.evaluation:
            job["evaluation"] = dict(chosen.evaluation)
        return job | {"output": output}

    def _measuring(self, chosen: Texts) -> Plan:
        """Return the plan of a job that measures and removes nothing."""
        resolved, estimate = self._resolved(chosen, None, None, ArtifactForm())
        figures, wide = split_by_band(time_figures(estimate))
        return Plan(
            model=self.body.model,
            goal=self.body.goal,
            amount=None,
            job=self._job(chosen, None, None, ArtifactForm()),
            summary=wording.summary(self.model.name, self.body.goal, resolved.recipe, None, figures),
            choices=[*self._method_choices(), *chosen.choices],
            figures=figures,
            points=[],
            answers=None,
            unknown=wording.too_wide(wide),
            warnings=estimate.warnings,
            alternatives=[],
            instead=None,
        )

    @property
    def _tokens(self) -> int | None:
        """Return the number of tokens that stay beside a method; None where all do."""
        if self.unused is None or self.body.keep_quality is not None:  # other text loses more than bands tell
            return None
        return self.unused.kept

    def _removing_tokens(self, request: ResolvedRequest, chosen: Texts) -> Plan:
        """Return the plan that removes the tokens that the text does not use, and nothing else.

        Raises InvalidRequest where that is less than the amount.
        """
        unused, body, description = self.unused, self.body, self.model.description
        assert unused is not None and unused.counted is not None
        dtype = narrower_dtype(description)
        form = ArtifactForm(dtype=dtype, tokens=unused.kept)
        if body.goal == "size" and self.exports:
            form = replace(form, file_bytes=self._file_bytes())
        ratio = form.stored_bytes(description, request, 0.0) / description.bytes
        amount = unused.share if body.goal == "speed" else 1 - ratio
        if body.amount is not None and body.amount > amount:
            raise InvalidRequest(f"amount: the unused tokens have {amount:.4g} of that", param="amount")
        resolved, estimate = self._resolved(chosen, None, None, form)
        basis = "counted: the rows of the tokens that stay, and all other tensors"
        size = PlanFigure(estimate=ratio, low=ratio, high=ratio, source="account", count=0, basis=basis)
        known: dict[FigureName, PlanFigure] = {"bytes_ratio": size, **time_figures(estimate)}
        if (perplexity := unused.perplexity()) is not None:
            known = {"perplexity_ratio": perplexity, **known}
        figures, wide = split_by_band(known)
        better = best_alternative(body.goal, description, figures, self.alternatives)
        not_worth = wording.not_worth(unused.share, figures, better)
        without_time = {name: each for name, each in figures.items() if name != "seconds"}
        return Plan(
            model=body.model,
            goal=body.goal,
            amount=amount,
            job=self._job(chosen, None, None, form),
            summary=f"{wording.tokens_summary(self.model.name, unused, figures)} {not_worth}".strip(),
            choices=[
                *self._method_choices(),
                choice("parameters.tokens", AUTO, unused.reason),
                choice("amount", amount, "all that goes at no loss" if body.amount is None else "more costs nothing"),
                wording.recovery_of_tokens(unused.text),
                *chosen.choices,
                *form_choices(description, body.goal, form, self.exports),
            ],
            figures=figures,
            points=[PlanPoint(amount=amount, figures={**without_time})],
            answers=None,
            unknown=[
                *wording.unknown({**figures, **wide}, description, resolved.recipe, is_recovered=False),
                *wording.too_wide(wide),
            ],
            warnings=estimate.warnings,
            alternatives=list(self.alternatives),
            instead=None if better is None else self._instead(better, chosen),
        )

    def _fits(self, chosen: Texts) -> ResolvedRequest:
        """Return the request as it fits the model, with nothing removed yet; raises the reason why it does not fit."""
        candidate = self.candidate
        request = UnresolvedRequest(
            candidate.method,
            candidate.pattern,
            0.0 if parse_pattern(candidate.pattern).sparsity is None else None,
            candidate.parameters,
            layout="per_layer" if candidate.layout == "per_layer" else None,
            is_calibrated=chosen.calibration is not None,
        )
        return resolve_request(self.model.description, request)

    def _loss_estimates(
        self, request: ResolvedRequest, chosen: Texts, earlier: EarlierQuestions | None
    ) -> tuple[LossEstimates, dict[str, LossEstimates], dict[str | None, LossEstimates]]:
        """Return the loss estimates without a recovery, and with each recovery that was measured.

        The last are those of answers, without a recovery (None) and with each.
        """
        setting = setting_of(
            request.method, request.pattern, request.layout, request.parameters.model_dump(mode="json")
        )
        assert setting is not None
        kind: past_jobs.Lost = "units" if request.shrinks else "weights"
        descent = past_jobs.descent_of(self.context.session, self.context.team_id, self.model)
        is_other = bool(descent.lost.keys() - {kind})
        subject = (
            descent.subject
            if kind in descent.lost
            else past_jobs.subject_of(self.model.description, self.model.revision, self.model.name)
        )
        question = Question(
            setting=setting,
            subject=subject,
            calibration=chosen.calibrated_on,
            calibration_tokens=chosen.tokens,
            evaluation=chosen.evaluated_on,
            writes_own_text=chosen.calibrated_on == SELF,
            was_pruned=is_other,
        )
        context = self.context
        own = past_jobs.outcomes_of_jobs(context.session, context.team_id, request.method, subject, self.until)
        shipped = list(shipped_outcomes())
        unrecovered = [each for outcome in own if (each := outcome.before_recovery) is not None]
        known = LossEstimates.of(question, [*own, *unrecovered], shipped, descent.lost.get(kind, 0.0))
        recoveries = {each.setting.recovery for each in [*own, *shipped] if each.setting.recovery is not None}
        lost = descent.lost.get(kind, 0.0)
        trained: dict[str | None, Question] = {
            name: replace(question, setting=replace(setting, recovery=name)) for name in recoveries
        }
        return (
            known,
            {str(name): LossEstimates.of(each, own, shipped, lost) for name, each in trained.items()},
            {name: answer_estimates(each, own, earlier, lost) for name, each in {**trained, None: question}.items()},
        )

    def _amount(self, scale: Scale, losses: LossEstimates, answers: LossEstimates) -> tuple[float, str]:
        """Return the amount to remove and the reason; raises InvalidRequest where it is out of reach."""
        body, candidate = self.body, self.candidate
        if body.amount is not None:
            if scale.fixed is not None and abs(body.amount - scale.fixed) > 1e-6:
                raise InvalidRequest(
                    f"amount: pattern {candidate.pattern} removes {scale.fixed:g} of the weights: leave amount out",
                    param="amount",
                )
            if body.amount > scale.most:
                raise InvalidRequest(
                    f"amount: {candidate.method} can remove at most {scale.most:.4g} of this model, not "
                    f"{body.amount:g}: use less",
                    param="amount",
                )
            return body.amount, "as asked for"
        known = [(each, losses.ratio(scale.share(each))) for each in scale.amounts(_STEP)]
        rated = [(amount, figure) for amount, figure in known if figure is not None]
        if body.keep_quality is not None:
            return self._kept(body.keep_quality, rated)
        if scale.fixed is not None:
            return scale.fixed, f"pattern {candidate.pattern} leaves no choice"
        close = [amount for amount, figure in rated if figure.estimate <= CLOSE_TO_DENSE]
        answering = [each for each in close if expected_answers(answers.excess(scale.share(each))) != NO_LONGER]
        if answering:
            why = f"the largest amount whose estimate stays close to the dense model, at {CLOSE_TO_DENSE:g} times its "
            return max(answering), why + ("perplexity" if answering == close else "perplexity, and still answers")
        if rated:
            return rated[0][0], "the smallest amount, but even that is not expected to stay close to the dense model"
        usual = usual_amount(candidate.method, candidate.pattern, summary_of(self.model.description))
        usual = min(max(usual, scale.least), scale.most)
        return usual, "the usual amount of this method, as its cost for a model like this is not known yet"

    def _kept(self, limit: float, rated: Sequence[tuple[float, PlanFigure]]) -> tuple[float, str]:
        """Return the largest amount whose whole band stays within a perplexity limit."""
        if not rated:
            raise InvalidRequest(
                "keep_quality: no measurement says yet what a model like this loses: give amount instead; the next "
                "plan can use what that job measures",
                param="keep_quality",
            )
        kept = [amount for amount, figure in rated if figure.high <= limit]
        if kept:
            return max(kept), f"the largest amount whose whole range stays within {limit:g} times the perplexity"
        amount, figure = min(rated, key=lambda each: each[1].high)
        raise InvalidRequest(
            f"keep_quality: {limit:g} cannot be reached: the nearest is {figure.high:.3g}, with {amount:.0%} "
            f"removed ({figure.estimate:.3g} expected, {figure.low:.3g} to {figure.high:.3g})",
            param="keep_quality",
        )

    def _job(
        self, chosen: Texts, sparsity: float | None, recovery: JsonObject | None, form: ArtifactForm
    ) -> JsonObject:
        """Return the body of the job, without defaults."""
        candidate, keep_quality = self.candidate, self.body.keep_quality
        job: dict[str, Any] = {"model": self.body.model, "method": candidate.method}
        if sparsity is not None:
            job |= {"pattern": candidate.pattern, "sparsity": sparsity}
        if candidate.parameters:
            job["parameters"] = dict(candidate.parameters)
        if chosen.calibration is not None:
            job["calibration"] = dict(chosen.calibration)
        if chosen.evaluation:
            job["evaluation"] = dict(chosen.evaluation)
        if form.tokens is not None and not candidate.removes_tokens:
            job["vocabulary"] = {"tokens": AUTO}
        if recovery is not None:
            job["recovery"] = dict(recovery)
        if keep_quality is not None and chosen.evaluated_on is not None:
            job["gates"] = {"max_perplexity_ratio": keep_quality}
        output: dict[str, Any] = {}
        if form.format != "dense":
            output["format"] = form.format
        if form.dtype != "keep":
            output["dtype"] = form.dtype
        if candidate.layout != "uniform":
            output["layout"] = candidate.layout
        if self.exports:
            output["exports"] = list(self.exports)
        if output:
            job["output"] = output
        return job

    def _resolved(
        self, chosen: Texts, sparsity: float | None, recovery: JsonObject | None, form: ArtifactForm
    ) -> tuple[ResolvedJob, Estimate]:
        """Return the job resolved as by a submit, with its estimate; raises the errors of a submit."""
        job = JobBody.model_validate(self._job(chosen, sparsity, recovery, form))
        try:
            resolved = resolve_job(self.context, job)
        except SecateurError as error:
            if self.body.dataset is not None and error.param in ("calibration.dataset", "calibration.samples"):
                error.param = "dataset"
            raise
        context = self.context
        estimate = estimate_that_fits(context.session, context.team_id, resolved, context.settings).estimate
        return resolved, estimate

    @staticmethod
    def _points(
        scale: Scale, expected: Callable[[float], Mapping[FigureName, PlanFigure]], amount: float
    ) -> list[PlanPoint]:
        """Return the expected outcome of the amount, and of other amounts."""
        points = []
        for each in sorted({*scale.amounts(POINTS_STEP), amount}):
            known, _ = split_by_band(expected(each))
            points.append(PlanPoint(amount=each, figures={**known}))
        return points

    def _expected(
        self,
        request: ResolvedRequest,
        scale: Scale,
        losses: LossEstimates,
        answers: LossEstimates | None,
        form: ArtifactForm,
        dense: past_jobs.DensePerplexity | None,
        amount: float,
    ) -> dict[FigureName, PlanFigure]:
        """Return the expected outcome of one amount, without the job's time."""
        figures: dict[FigureName, PlanFigure] = {}
        ratio = losses.ratio(scale.share(amount))
        if ratio is not None:
            figures["perplexity_ratio"] = ratio
            if dense is not None:
                figures["bits_per_byte_ratio"] = bits_per_byte_figure(ratio, dense)
        kl = None if answers is None else answers.excess(scale.share(amount))
        if kl is not None:
            figures["answer_kl"] = kl
        figures["bytes_ratio"] = size_figure(self.model.description, request, form, scale, amount)
        if request.shrinks:
            figures |= losses.latency(scale.share(amount))
        return figures

    def _choices(
        self, request: ResolvedRequest, amount: float, why: str, chosen: Texts, form: ArtifactForm
    ) -> list[PlanChoice]:
        candidate, body = self.candidate, self.body
        choices = [
            *self._method_choices(),
            choice("pattern", request.pattern, wording.pattern_reason(request, body.goal)),
            choice("amount", amount, why),
            *chosen.choices,
        ]
        if "budget" in candidate.parameters:
            budget = candidate.parameters["budget"]
            choices.append(choice("parameters.budget", budget, "what was measured; others take longer"))
        choices += form_choices(self.model.description, body.goal, form, self.exports)
        if self.unused is not None:
            choices.append(self.unused.choice(keeps_quality=body.keep_quality is not None))
        if body.keep_quality is not None and chosen.evaluated_on is not None:
            choices.append(choice("gates.max_perplexity_ratio", body.keep_quality, "the quality that was asked for"))
        return choices

    def _method_choices(self) -> list[PlanChoice]:
        passed = "".join(f"; {each.method} was not taken: {error.message}" for each, error in self.refusals[:1])
        return [choice("method", self.candidate.method, self.candidate.reason + passed)]

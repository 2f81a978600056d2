"""Checks of the matrix: a type's tiny model, opened and pruned, at two seeds and two lengths of sequences."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.architectures.jobs import carry_out, reopened, shrank, streamed_logits
from bench.architectures.masked import Unmatched, without_experts, without_layers, without_units
from bench.architectures.outcomes import CAPABILITIES, Capability, Outcome, Status, TypeOutcomes, worst
from bench.architectures.rows import cut_rows, largest_difference, require_rows
from bench.architectures.tiny_configs import tiny_model, tokens_of
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.declared import declared_architecture
from core.engine.architectures.describe import describe_source
from core.engine.architectures.description import UndiscoveredModel, discovery_key
from core.engine.architectures.heterogeneous import MODELLING_FILE
from core.engine.evaluation.reload_check import largest_logit
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.results import LayerRow, PruneResult
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import InvalidRequest, SecateurError, UnsupportedArchitecture, UnusableModel

SEEDS = (0, 1)
LENGTHS = ((12, 1), (40, 2))
OF_MIXTURES = ((5, 1), (6, 2), (24, 2))
"""Lengths of sequences, each with how many go through the blocks at once; and those that mixtures are tried at too.

A router that is silently wrong may be so at some lengths alone.
"""

_TOLERANCE = 1e-4
_REASON = 400
_ROUNDING = 1e-5
"""Largest difference of logits that rounding explains, relative to the largest: kernels sum in other orders."""


class Ended(Exception):
    """A cell is at its end, with the outcome."""

    def __init__(self, status: Status, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = Outcome(status, " ".join(reason.split())[:_REASON], stage)


def check_type(model_type: str, work: Path, seeds: Sequence[int] = SEEDS) -> TypeOutcomes:
    """Return the outcomes of all cells of a type."""
    begun = time.perf_counter()
    discoveries: dict[str, Architecture] = {}
    subjects = [_subject(model_type, seed, work / str(seed), discoveries) for seed in seeds]
    cells: dict[Capability, Outcome] = {}
    for capability in CAPABILITIES:
        outcomes: list[Outcome] = []
        for subject in subjects:
            if not outcomes or outcomes[-1].status == "yes":
                outcomes.append(subject if isinstance(subject, Outcome) else subject.outcome(capability))
        cells[capability] = worst(outcomes)
    ready = [each for each in subjects if isinstance(each, _Subject)]
    return TypeOutcomes(
        model_type=model_type,
        listed=any(each.listed for each in ready),
        has_experts=any(each.has_experts for each in ready),
        seconds=round(time.perf_counter() - begun, 1),
        cells=cells,
    )


@contextmanager
def _stage(name: str, status: Status = "failed") -> Iterator[None]:
    """Turn errors of a stage into outcomes: what the service refuses is refused."""
    try:
        yield
    except Ended:
        raise
    except Unmatched as error:
        raise Ended("wrong", name, str(error)) from error
    except UnsupportedArchitecture as error:
        raise Ended("refused", name, error.message) from error
    except UnusableModel as error:
        raise Ended("failed", name, f"{error.code}: {error.message}") from error
    except InvalidRequest as error:
        raise Ended("refused", name, error.message) from error
    except SecateurError as error:
        raise Ended("failed", name, f"{error.code}: {error.message}") from error
    except Exception as error:  # models of all kinds fail in all ways, and each is a cell's outcome
        raise Ended(status, name, f"{type(error).__name__}: {error}") from error


class _Subject:
    """A tiny model as its folder, its own logits, and how it was opened; `outcome` tries a capability once."""

    def __init__(self, model_type: str, seed: int, work: Path, discoveries: dict[str, Architecture]) -> None:
        self._work, self._seed, self._discoveries = work, seed, discoveries
        self._path = work / "model"
        model = tiny_model(model_type, seed)
        self.has_experts = _has_experts(model)
        model.save_pretrained(self._path)
        self._lengths = LENGTHS + OF_MIXTURES if self.has_experts else LENGTHS
        self._tokens = [tokens_of(model.config, seed, length) for length, _ in self._lengths]
        self._logits = self._logits_of(model)
        self.listed = declared_architecture(type(model).__name__, model.config.model_type) is not None
        _require_equal(self._logits_of(self._stock(self._path)), self._logits)
        self._discovered: Architecture | None = None
        self._folder: ModelFolder | None = None
        self._opening: Outcome | None = None

    def outcome(self, capability: Capability) -> Outcome:
        """Return how a capability turns out; those that need an opened model end as its opening did."""
        if self._opening is None:
            self._opening = _ended(self._open)
        if capability == "rows":
            return _ended(self._cut_rows)
        if capability == "opens" or self._opening.status != "yes":
            return self._opening
        if capability == "experts" and not self.has_experts:
            return Outcome("refused", "it has none", "discover")
        return _ended(lambda: self._prune(capability))

    def _open(self) -> None:
        with _stage("discover"):
            source = describe_source(self._path)
            if isinstance(source, UndiscoveredModel):
                key = discovery_key(source.digest, transformers.__version__)
                if key not in self._discoveries:
                    self._discoveries[key] = discover_and_test(source.config, source.entries())
                self._discovered = self._discoveries[key]
                for nothing in ("experts", "weights"):  # without which nothing is offered
                    if nothing in self._discovered.refused:
                        raise Ended("refused", "discover", self._discovered.refused[nothing])
        with _stage("open"):
            self._folder = open_model(self._path, discovered=self._discovered)
        self._require_streamed(self._folder, self._logits, "open")

    def _prune(self, capability: Capability) -> None:
        assert self._folder is not None
        work = self._work / re.sub("[^a-z]", "-", capability)
        calibration = tokens_of(self._folder.config, self._seed + 10, 24)
        with _stage("job"):
            artifact, result = carry_out(capability, self._folder, calibration, work, self._discovered)
            after = reopened(artifact, self._discovered)
        with _stage("stock from_pretrained", "wrong"):
            cut = self._stock(artifact)
            logits = self._logits_of(cut)
        self._require_streamed(after, logits, "artifact streamed")
        with _stage("masked model", "wrong"):
            dense = self._stock(self._path)
            if capability in ("unstructured", "n:m"):
                _require_zeros(dense, cut, result, updates=capability == "n:m")
                return
            if not shrank(capability, self._folder, after):
                raise Ended("failed", "job", f"no {capability} went")
            _require_untouched(dense, cut, self._folder.family.blocks)
            if capability == "layers":
                without_layers(dense, cut, self._folder.family.blocks)
            elif capability == "experts":
                without_experts(dense, cut)
            else:
                without_units(dense, cut)
            _require_equal(logits, self._logits_of(dense))

    def _cut_rows(self) -> float:
        """Cut rows, and return the largest difference of logits of the tokens that stay."""
        target = self._work / "rows"
        with _stage("rows"):
            kept, after = cut_rows(self._path, target, self._seed, self._folder, self._discovered)
        generator = torch.Generator().manual_seed(self._seed)
        tokens = [torch.randint(len(kept), each.shape, generator=generator) for each in self._tokens]
        with _stage("stock from_pretrained", "wrong"):
            cut = self._stock(target)
            logits = self._logits_of(cut, tokens)
        if after is not None:
            self._require_streamed(after, logits, "artifact streamed", tokens)
        with _stage("dense model", "wrong"):
            dense = self._stock(self._path)
            require_rows(dense, cut, kept)
            expected = self._logits_of(dense, [torch.tensor(kept)[each] for each in tokens])
            difference = largest_difference(logits, expected, kept)
            allowed = _ROUNDING * max(map(largest_logit, expected))
            if not difference <= allowed:
                raise ValueError(f"logits of tokens that stay differ by {difference:g}, {allowed:g} is allowed")
        return difference

    def _require_streamed(
        self, folder: ModelFolder, expected: list[Tensor], stage: str, tokens: list[Tensor] | None = None
    ) -> None:
        with _stage(f"{stage}: stream"):
            streamed = [
                streamed_logits(folder, each, micro_batch, self._work / "streams")
                for each, (_, micro_batch) in zip(tokens or self._tokens, self._lengths, strict=True)
            ]
        with _stage(f"{stage}: streamed logits", "wrong"):
            _require_equal(streamed, expected)

    def _stock(self, folder: Path) -> PreTrainedModel:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=(folder / MODELLING_FILE).is_file()
        )
        model.eval()
        return model

    @torch.inference_mode()
    def _logits_of(self, model: PreTrainedModel, tokens: list[Tensor] | None = None) -> list[Tensor]:
        return [model(input_ids=each, use_cache=False).logits.float() for each in tokens or self._tokens]


def _subject(model_type: str, seed: int, work: Path, discoveries: dict[str, Architecture]) -> "_Subject | Outcome":
    try:
        with _stage("transformers", "unbuilt"):
            return _Subject(model_type, seed, work, discoveries)
    except Ended as ended:
        return Outcome("unbuilt", ended.outcome.reason, "transformers")


def _ended(cell: Callable[[], float | None]) -> Outcome:
    try:
        return Outcome("yes", difference=cell() or 0.0)
    except Ended as ended:
        return ended.outcome


def _require_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(got, expected, strict=True):
        allowed = _TOLERANCE * largest_logit(other)
        difference = float((one - other).abs().max())
        if not difference <= allowed:
            raise ValueError(f"logits of {one.shape[1]} tokens differ by {difference:g}, {allowed:g} is allowed")


def _require_zeros(dense: PreTrainedModel, cut: PreTrainedModel, result: PruneResult, *, updates: bool) -> None:
    """Require the zeros that were reported, in the layers that were reported, and all other weights as they were.

    `updates`: the weights that stay in these layers may be others.
    """
    zeros = {row.name: row.zeros for row in result.layers if isinstance(row, LayerRow)}
    modules = dict(cut.named_modules())
    checked = set()
    for name, module in dense.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            other = getattr(modules[name], own)
            layer = name if own == "weight" else f"{name}.{own}"  # experts' stacks are parameters of their own
            if layer not in zeros:
                if not torch.equal(weight, other):
                    raise ValueError(f"{name}.{own} was changed, and no layer of that name was pruned")
                continue
            checked.add(layer)
            if int((other == 0).sum()) != zeros[layer] or zeros[layer] != weight.numel() // 2:
                raise ValueError(f"{layer} has {int((other == 0).sum())} zeros, {zeros[layer]} were reported")
            if not updates and not torch.equal(weight * (other != 0), other):
                raise ValueError(f"the weights that stay in {layer} are not those of the dense model")
    if not zeros or zeros.keys() != checked:
        raise ValueError("layers were pruned that the model does not have")


def _require_untouched(dense: PreTrainedModel, cut: PreTrainedModel, blocks: str) -> None:
    """Require all weights and saved buffers outside the blocks to be as they were, bit for bit."""
    before, after = dense.state_dict(), cut.state_dict()
    for name, weight in before.items():
        if not name.startswith(f"{blocks}.") and not torch.equal(weight, after[name]):
            raise ValueError(f"{name} was changed, and is outside the blocks")


def _has_experts(model: PreTrainedModel) -> bool:
    return any("expert" in name.lower() or "Expert" in type(module).__name__ for name, module in model.named_modules())

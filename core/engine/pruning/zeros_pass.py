"""Layer-wise pass: it prunes a model block by block, measures dense and pruned on the same tokens, and can resume.

For each block: read its tensors; run the dense streams through it; prune it while the calibration stream passes; run
the other pruned streams through the weights to be saved; write the block and the streams; release it. In memory are the
embeddings and head, one block with its statistics, and the activation budget; nothing grows with depth.
"""

import math
from collections.abc import Iterable
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.quantisation import QUANTISATION_KEY, packed_config
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import fast_arithmetic, gradient_dtype
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES, to_out_in
from core.engine.pruning.allocation import fisher_rates, outlier_share, owl_sparsities
from core.engine.pruning.block_pass import BlockPass
from core.engine.pruning.compensation.refit import Fitted, fitted_tokens, prune_and_fit
from core.engine.pruning.expert_pruning import ExpertPruner
from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic, relative_error
from core.engine.pruning.plan import LayerwisePlan
from core.engine.pruning.results import ExpertRow, LayerRow, PruneResult, RoutingRow
from core.engine.pruning.solver import PrunableLinear
from core.engine.pruning.streams.measure import pairs
from core.engine.pruning.streams.propagation import (
    BlockPropagation,
    DenseReference,
    ExpertBarrier,
    InputGroup,
    input_groups,
)
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.kinds import BLOCK
from core.engine.resume.store import ResumeStore
from secateur_wire.base import JsonObject
from secateur_wire.errors import RunFailed

HEAD = "head"


class LayerRows:
    """Rows in the order of pruning. `all` are the complete ones.

    Their figures stay on the device until `complete` reads those of many layers together: each read waits for all work
    that the device still has to do.
    """

    def __init__(self, rows: Iterable[LayerRow] = ()) -> None:
        self.all = list(rows)
        self._unread_rows: list[tuple[LayerRow, Tensor]] = []

    def add(
        self, linear: PrunableLinear, shape: LinearShape, fitted: Fitted, saved_OI: Tensor, inputs: InputStatistic
    ) -> None:
        """Add a layer; `saved_OI` are its pruned weights as they are saved, in float32."""
        target = linear.target
        row = LayerRow(
            name=linear.name,
            layer=shape.layer,
            out_features=shape.out_features,
            in_features=shape.in_features,
            target=target.sparsity if target.count is None else target.count / shape.numel,
            zeros=0,
            sparsity=0.0,
            reconstruction_error=None,
            refit=fitted.refit,
            ridge=fitted.ridge,
            conjugate_gradient=fitted.steps,
        )
        zeros = (saved_OI == 0).sum(dtype=torch.float64) if fitted.rounded is None else fitted.rounded.pruned
        figures = [zeros, saved_OI.sum(dtype=torch.float64)]
        if inputs.tokens:
            figures += [inputs.energy(linear.weight_OI), inputs.energy(linear.weight_OI - saved_OI)]
        self._unread_rows.append((row, torch.stack(figures)))

    def complete(self) -> None:
        """Read the figures of the layers added since the last call; raises RunFailed where weights are not finite."""
        figures = torch.cat([each for _, each in self._unread_rows]).tolist() if self._unread_rows else []
        for row, own in self._unread_rows:
            zeros, total, *energies = (figures.pop(0) for _ in range(len(own)))
            if not math.isfinite(total):
                raise RunFailed(
                    f"{row.name}: its inputs are infinite or not a number, so there is nothing to solve for"
                )
            error = relative_error(*energies) if energies else None
            sparsity = zeros / (row.out_features * row.in_features)
            self.all.append(replace(row, zeros=int(zeros), sparsity=sparsity, reconstruction_error=error))
        self._unread_rows = []


class LayerwisePass(BlockPass):
    """Pass over all blocks that sets weights to zero."""

    def __init__(self, folder: ModelFolder, plan: LayerwisePlan, **setting: Any) -> None:
        """Set up the pass; `setting` are the keyword arguments of `BlockPass`."""
        super().__init__(folder, plan, **setting)
        self.plan = plan
        self.method = plan.method
        self.rows = LayerRows()
        streamed = StreamedModel(folder, dtype=plan.dtype, device=plan.device)
        # Its blocks stay empty: all streams go through those of the dense model, filled anew.
        self.outer = self.model_as_stored(streamed)
        self.set_up_streams(streamed, self.outer, self.outer)
        self.calibration = (
            None
            if self.calibration_tokens is None
            else self.stream("calibration", self.calibration_tokens, self.outer, plan.forward_dtype)
        )
        # The dense model's stream of the calibration tokens, where weights are fitted to its outputs.
        self.dense_calibration = (
            self.stream("dense-calibration", self.calibration_tokens, self.streamed, plan.forward_dtype)
            if plan.compensation is not None and plan.compensation.refits and self.calibration_tokens is not None
            else None
        )
        # The stream for pruning: calibration tokens, or evaluation tokens for methods that read no inputs.
        pruned = [*self.pruned_streams.values(), self.verification]
        self.driver = self.calibration or pruned[0]
        self.other_streams = [each for each in pruned if each is not self.driver]
        self._by_module = {linear.name: (index, linear) for index, linear in enumerate(plan.linears)}
        self.rounding = None
        self._quantised: dict[str, QuantisedWeight] = {}
        """Quantised weights of the current block, by their names in the model."""
        if plan.rounding is not None:
            self.rounding = replace(plan.rounding, dtype=DTYPES[self.stored_folder.description.dtype])
        self.routing: list[RoutingRow] = []

    @property
    def streams(self) -> list[Stream]:
        calibration = (each for each in (self.calibration, self.dense_calibration) if each is not None)
        return [*calibration, *super().streams]

    def run(self) -> PruneResult:
        """Prune all blocks, then the head; raises UnusableModel kinds for unusable tensors."""
        with fast_arithmetic(self.plan.device):
            start = self._resume()
            if start == 0 and self.plan.measured_allocation is not None:
                self.begin_measurements()
                if self.plan.measured_allocation == "owl":
                    self.plan = self.plan.with_sparsities(self._outlier_sparsities())
                else:
                    self.plan = self.plan.with_rates(self._fisher_rates())
            return self._walk(start)

    @torch.inference_mode()
    def _walk(self, start: int) -> PruneResult:
        blocks = len(self.streamed)
        if start == 0:
            for stream in self.streams:
                stream.start()
        self.progress.stage("prune")
        self.begin_blocks(start, blocks)
        for index, tensors in self.streamed.read_blocks(range(start, blocks), "pruning blocks"):
            self._block(index, tensors)
            state = {
                "rows": [asdict(row) for row in self.rows.all],
                "notes": self.notes,
                "sparsities": self.plan.sparsities,
                "rates": self.plan.rates,
                "routing": [asdict(row) for row in self.routing],
            }
            self.save(index + 1, state)
            self.report_block(index + 1, blocks, [row for row in self.rows.all if row.layer == index])
        self.progress.stage("evaluate")
        backend_of(self.plan.device).release_memory()  # before the head is read
        return self._finish(start)

    def _resume(self) -> int:
        saved = self.resume(self.streams, len(self.streamed))
        if saved is None:
            return 0
        state = saved.state
        self.rows = LayerRows((ExpertRow if "experts" in row else LayerRow)(**row) for row in state["rows"])
        self.routing = [
            RoutingRow(row["name"], row["layer"], tuple(row["tokens"]), tuple(row["pooled"]))
            for row in state["routing"]
        ]
        self.notes = list(state["notes"])
        self.plan = replace(self.plan, sparsities=tuple(state["sparsities"]), rates=state["rates"])
        return saved.position

    def _groups(self, index: int) -> list[InputGroup]:
        """Return the block's input groups with their pruned linear layers."""
        names = {*self._by_module}
        if self.rounding is not None:  # of the layers that are not pruned too
            names |= {linear.name for linear in self.folder.description.linears}
        return input_groups(self.folder.family.inputs, names, f"{self.streamed.block_prefix(index)}.")

    def _new_statistic(self, level: Statistic | None = None) -> InputStatistic:
        """Return an empty statistic of a level (None: the method's), or of the one that rounding needs."""
        level = level or self.method.statistic
        if self.rounding is not None:
            level = max(level, self.rounding.statistic, key=lambda each: each.value)
        return self.plan.statistic(level, self.driver.token_count, self._fitted_tokens)

    @property
    def _fitted_tokens(self) -> int | None:
        """Number of the driver's tokens to which weights are fitted; None: all."""
        return None if self.plan.compensation is None else fitted_tokens(self.plan.compensation, self.driver)

    def _block(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Prune a block with these tensors, which are on the device, and save the result."""
        plan, streamed = self.plan, self.streamed
        self.pass_dense_block(index, tensors)
        block = streamed.fill_block(index, tensors, self.driver.dtype)
        dense = (
            None
            if self.dense_calibration is None
            else DenseReference(deepcopy(block), self.dense_calibration, index, self.folder.family.added_to_stream)
        )
        prefix = streamed.block_prefix(index)
        if self.is_cast:
            tensors.update(self.as_stored(prefix, tensors))
            block = streamed.fill_block(index, tensors, self.driver.dtype)

        def prune_group(group: InputGroup, statistic: InputStatistic) -> None:
            names = [f"{name}.weight" for name in group.linears]
            pruned = self._prune([f"{prefix}.{name}" for name in group.linears], [tensors[n] for n in names], statistic)
            for linear, name, weight in zip(group.linears, names, pruned, strict=True):
                tensors[name] = weight
                module = block.get_submodule(linear)
                assert isinstance(module.weight, nn.Parameter)
                module.weight = nn.Parameter(weight.to(module.weight.dtype), requires_grad=False)

        groups = self._groups(index)
        experts = self._experts(index, block, tensors, None if dense is None else dense.block)
        if groups or experts is not None:
            propagation = BlockPropagation(block, index, self.driver, groups, self._new_statistic, dense, experts)
            if plan.propagation == "in_flight":
                propagation.prune_in_flight(prune_group)
            else:
                propagation.prune_two_pass(prune_group)
        else:
            self.driver.advance(block, index)
            if dense is not None:
                dense.stream.advance(dense.block, index)
        block = streamed.fill_block(index, tensors, plan.dtype)
        for stream in self.other_streams:
            stream.advance(block, index)
        streamed.empty_block(index)
        self.rows.complete()
        saved = {f"{prefix}.{name}": tensors[name] for name in tensors}
        for name, quantised in self._quantised.items():
            del saved[name]
            saved |= quantised.packed(name)
        self._quantised = {}
        self.save_block(index, saved)

    def _experts(
        self, index: int, block: nn.Module, tensors: dict[str, Tensor], dense: nn.Module | None
    ) -> ExpertBarrier | None:
        """Return the barrier at which a block's experts are pruned; None where no experts are pruned."""
        experts, prefix = self.folder.family.experts, self.streamed.block_prefix(index)
        if experts is None:
            return None
        pruner = ExpertPruner(
            self.plan, experts, self._by_module, prefix, block, tensors, dense, self._fitted_tokens, self.notes.append
        )

        def prune(arrived: ExpertBarrier) -> None:
            rows, routing = pruner.prune(arrived)
            self.rows.complete()
            self.rows.all += rows
            self.routing.append(routing)
            if routing.pooled:
                self.notes.append(routing.summary)

        return ExpertBarrier(experts.module, prune) if pruner.prunes_any else None

    def _prune(self, modules: list[str], stored: list[Tensor], statistic: InputStatistic) -> list[Tensor]:
        """Prune linear layers that share an input and report them; return weights in stored dtype and layout.

        Where the blocks are quantised, their layers that are not pruned are rounded too.
        """
        family = self.folder.family
        rounding = None if modules == [family.head] else self.rounding
        dense_OI = [to_out_in(weight, family).float() for weight in stored]
        linears = [
            PrunableLinear(module, self._by_module[module][0], weight_OI, self.plan.target(self._by_module[module][1]))
            for module, weight_OI in zip(modules, dense_OI, strict=True)
            if module in self._by_module
        ]
        pruned_layers: dict[str, Fitted] = {}
        if linears:
            fits = prune_and_fit(self.method, linears, statistic, self.plan.compensation, self.notes.append, rounding)
            pruned_layers = {linear.name: fitted for linear, fitted in zip(linears, fits, strict=True)}
        left = {name: weight_OI for name, weight_OI in zip(modules, dense_OI, strict=True) if name not in pruned_layers}
        if left and rounding is not None:
            quantised = rounding.round([*left.values()], statistic, self.notes.append)
            pruned_layers |= {
                name: Fitted(each.weight_OI, rounded=each) for name, each in zip(left, quantised, strict=True)
            }
        rounded = {
            module: self._as_run(pruned_layers[module], weight.dtype)
            for module, weight in zip(modules, stored, strict=True)
        }
        for linear in linears:
            shape = self._by_module[linear.name][1]
            self.rows.add(linear, shape, pruned_layers[linear.name], rounded[linear.name].float(), statistic)
        self._quantised |= {
            f"{name}.weight": fitted.rounded for name, fitted in pruned_layers.items() if fitted.rounded is not None
        }
        return [to_out_in(weight_OI, family).contiguous() for weight_OI in rounded.values()]

    def _as_run(self, fitted: Fitted, dtype: torch.dtype) -> Tensor:
        """Return the weight of a layer that is stored in a dtype, as it runs in the model that is measured.

        Where that model is of another dtype than the saved one, codes are multiplied in it, as its readers do.
        """
        if fitted.rounded is None or not self.is_cast:
            return fitted.weight_OI.to(dtype)
        return fitted.rounded.grid.values_of(fitted.rounded.codes_OI, self.plan.dtype)

    @property
    def _config(self) -> JsonObject | None:
        """The config.json of the saved model; None where it is the source's."""
        config = self.stored_folder.raw_config
        if self.rounding is None:
            return config if self.is_cast else None
        entry = packed_config(self.rounding.bits, self.rounding.group_size, [self.folder.family.head])
        return {**config, QUANTISATION_KEY: entry}

    def _in_dtype(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        tokens_BT, hidden_BTD = pair
        return tokens_BT, hidden_BTD.to(self.plan.dtype)

    @torch.inference_mode()
    def _outlier_sparsities(self) -> list[float]:
        """Return the sparsity of each block by the outliers of its scores, from a dense pass over the calibration.

        Experts get their block's sparsity, because their own tokens are not gathered here. The stream returns to its
        start.
        """
        plan, streamed, family, calibration = self.plan, self.streamed, self.folder.family, self.calibration
        options = plan.parameters.allocation_options
        assert options is not None and calibration is not None
        self.progress.log("OWL: a dense pass over the calibration tokens")
        calibration.start()
        shares: dict[int, float] = {}
        norms = partial(self._new_statistic, Statistic.NORMS)
        for index, tensors in streamed.read_blocks(range(len(streamed)), "looking for outliers in blocks"):
            block, groups = streamed.fill_block(index, tensors, calibration.dtype), self._groups(index)
            statistics = BlockPropagation(block, index, calibration, groups, norms).collect(advances=True)
            scores = (
                to_out_in(tensors[f"{name}.weight"], family).float().abs() * statistic.norms_I
                for group, statistic in statistics.items()
                for name in group.linears
            )
            if groups:
                shares[index] = outlier_share(scores, options.owl_outlier_ratio)
            del statistics  # rows of inputs, freed before the next block's are gathered
            streamed.empty_block(index)
        calibration.resume(0)
        chosen = owl_sparsities(list(shares.values()), plan.sparsity, options.owl_range)
        by_layer = dict(zip(shares, chosen, strict=True))
        return [by_layer.get(index, plan.sparsity) for index in range(len(streamed))]

    def _fisher_rates(self) -> dict[str, float]:
        """Return the share of each linear layer from the gradients of a few of the calibration sequences."""
        options = self.plan.parameters.allocation_options
        assert self.calibration_tokens is not None and options is not None
        tokens_NT = self.calibration_tokens
        stride = max(1, len(tokens_NT) // options.fisher_sequences)
        chosen_NT = tokens_NT[::stride][: options.fisher_sequences]
        self.progress.log(f"allocation: gradients of {len(chosen_NT)} sequences")
        stream = Stream(
            "gradients",
            chosen_NT,
            self.streamed,
            ResumeStore(self.work / "scratch", ""),
            self.budget,
            dtype=gradient_dtype(self.plan.dtype, self.plan.device),
            micro_batch=1,
            resumable=False,
            keeps_all=True,
        )
        linears = [each for each in self.plan.linears if each.layer < len(self.streamed) and each.experts is None]
        with closing(stream):
            return fisher_rates(stream, linears, self.plan.sparsity)

    def _finish(self, start: int) -> PruneResult:
        streamed, outer = self.streamed, self.outer
        self.measure_dense()
        unchanged = set(streamed.outer_names)
        head, family = f"{self.folder.family.head}.weight", self.folder.family
        if family.head in self._by_module:
            statistic = self._new_statistic()
            ahead = None if self.dense_calibration is None else pairs(self.dense_calibration)
            for tokens_BT, hidden_BTD in pairs(self.driver):
                before = None if ahead is None else streamed.head_inputs(*self._in_dtype(next(ahead)))
                inputs = outer.head_inputs(*self._in_dtype((tokens_BT, hidden_BTD)))
                statistic.update(inputs, before, places_N=outer.places(tokens_BT))
            (weight,) = self._prune([family.head], [self.stored_folder.read(head).to(self.plan.device)], statistic)
            self.rows.complete()
            outer.set_outer(head, weight)
            self.store.add(BLOCK, HEAD, {family.stored_name(head): weight})
            unchanged.remove(head)
        return PruneResult(
            layers=self.rows.all,
            sparsities=self.plan.sparsities,
            removed=sum(row.zeros for row in self.rows.all),
            prunable=sum(self._by_module[row.name][1].numel for row in self.rows.all),
            perplexity=self.measure_pruned(),
            notes=self.notes,
            files=self.store.lasting(BLOCK),
            unchanged=self.stored(unchanged),
            config=self._config,
            verification=self.write_verification(),
            resumed_from=start,
            sections={"routing": self.routing},
            micro_batches=self.micro_batch_history,
        )

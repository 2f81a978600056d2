"""Memory that jobs on three published mixtures take, by account, from their shapes: `python -m bench.mixture_memory`.

Nothing is loaded or run: the figures are those of the estimate that every job is given.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.page import show, table
from core.device_kinds import CPU
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.experts import ExpertMatrix, Experts
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.reload_memory import ReloadRoom, full_needs, offloaded_needs
from core.methods.cost import Tokens
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.mixtures import active_parameters, experts_account
from core.service.jobs.estimates.resources import estimate_resources
from core.service.jobs.schemas import JobBody

SECTION = "bench-mixture-memory"
TOKENS = Tokens(calibration=128 * 512, evaluation=0, window=512)
"""Calibration of 128 sequences of 512 tokens."""
_BUDGET = 4 * 2**30
_GIB = 2**30
_BYTES = 2


@dataclass(frozen=True)
class Mixture:
    """Shape of a published mixture, by what its config says.

    `attention` are the outputs and inputs of the linear layers of its attention. The first `dense` layers have an FFN
    of so many channels in place of experts; `shared` is the width of what all tokens pass beside the experts. `biases`:
    experts have them.
    """

    name: str
    layers: int
    hidden: int
    vocabulary: int
    attention: dict[str, tuple[int, int]]
    experts: int
    top_k: int
    width: int
    dense: int = 0
    dense_width: int = 0
    shared: int = 0
    biases: bool = False

    @property
    def description(self) -> ModelDescription:
        """The description of a model of this shape in bfloat16."""
        linears = [each for layer in range(self.layers) for each in self._block(layer)]
        prunable = sum(linear.numel for linear in linears)
        having = self.layers - self.dense
        routers = having * self.experts * (self.hidden + (2 * self.width + self.hidden) * self.biases)
        parameters = prunable + routers + 2 * self.vocabulary * self.hidden
        return ModelDescription(
            family=self.name, architecture=self.name, parameters=parameters, prunable_parameters=prunable,
            bytes=_BYTES * parameters, dtype="bfloat16", layers=self.layers, hidden_size=self.hidden,
            vocabulary_size=self.vocabulary, context_length=32768, tied_embeddings=False, linears=linears,
            discovered=self._architecture,
        )  # fmt: skip

    @property
    def _architecture(self) -> Architecture:
        experts = Experts(
            "mlp.experts", ExpertMatrix("gate_up_proj"), ExpertMatrix("down_proj"), transposed=False, top_k=self.top_k
        )
        return Architecture(
            model_type=self.name, architecture=self.name, title=self.name, order=0, base="model", blocks="model.layers",
            head="lm_head", sublayers=(), experts=experts, discovered_by="a published config",
        )  # fmt: skip

    def _block(self, layer: int) -> Iterator[LinearShape]:
        def shape(name: str, rows: int, columns: int, experts: int | None = None) -> LinearShape:
            full = f"model.layers.{layer}.{name}"
            return LinearShape(name=full, layer=layer, out_features=rows, in_features=columns, experts=experts)

        for name, (rows, columns) in self.attention.items():
            yield shape(f"self_attn.{name}", rows, columns)
        width = self.dense_width if layer < self.dense else self.shared
        if width:
            for name in ("gate_proj", "up_proj"):
                yield shape(f"mlp.{name}", width, self.hidden)
            yield shape("mlp.down_proj", self.hidden, width)
        if layer >= self.dense:
            yield shape("mlp.experts.gate_up_proj", 2 * self.width, self.hidden, self.experts)
            yield shape("mlp.experts.down_proj", self.hidden, self.width, self.experts)


MIXTURES = (
    Mixture(
        "Qwen3-30B-A3B", 48, 2048, 151936,
        {"q_proj": (4096, 2048), "k_proj": (512, 2048), "v_proj": (512, 2048), "o_proj": (2048, 4096)},
        experts=128, top_k=8, width=768,
    ),
    Mixture(
        "gpt-oss-20b", 24, 2880, 201088,
        {"q_proj": (4096, 2880), "k_proj": (512, 2880), "v_proj": (512, 2880), "o_proj": (2880, 4096)},
        experts=32, top_k=4, width=2880, biases=True,
    ),
    Mixture(
        "DeepSeek-V3", 61, 7168, 129280,
        {
            "q_a_proj": (1536, 7168), "q_b_proj": (24576, 1536), "kv_a_proj_with_mqa": (576, 7168),
            "kv_b_proj": (32768, 512), "o_proj": (7168, 16384),
        },
        experts=256, top_k=8, width=2048, dense=3, dense_width=18432, shared=2048,
    ),
)  # fmt: skip


def page(mixtures: Sequence[Mixture] = MIXTURES) -> str:
    """Return the table, with what it is of."""
    rows: list[list[str]] = []
    for mixture in mixtures:
        description = mixture.description
        states = _BYTES * mixture.hidden * TOKENS.calibration
        account = experts_account(
            description, weight_bytes=_BYTES, forward_bytes=_BYTES, tokens=TOKENS.calibration, lanes=1,
            states_bytes=min(states, _BUDGET),
        )  # fmt: skip
        assert account is not None
        needs = estimate_resources(
            description, _recipe(), TOKENS, device=CPU, activation_budget_bytes=_BUDGET, is_fetched=False,
            rooms=[ReloadRoom(memory=0, device_memory=None)],
        )  # fmt: skip
        checks = (full_needs(description, CPU).memory, offloaded_needs(description, CPU).memory)
        all_grams = 4 * mixture.experts * (mixture.hidden**2 + mixture.width**2)
        parts = (account.outer, account.block, account.expert, account.statistic, account.waiting, account.states)
        figures = [*parts, account.total, all_grams, *checks, needs.peak_memory_bytes]
        sizes = (f"{description.parameters / 1e9:.1f}", f"{active_parameters(description) / 1e9:.1f}")
        rows.append([mixture.name, *sizes, *(f"{each / _GIB:.2f}" for each in figures)])
    header = ("", "parameters, 10⁹", "of a token, 10⁹", *_ACCOUNTS)
    columns = [list(column) for column in zip(header, *rows, strict=True)]
    text = table(columns[0], columns[1:], text_columns=1)
    return (
        f"{text}\n\nThe figures are GiB, for `sparsegpt` on {TOKENS.calibration:,} calibration tokens in bfloat16, on "
        f"a CPU, with room for {_BUDGET // _GIB} GiB of activations. Written by `python -m bench.mixture_memory "
        "--write docs/experts.md`."
    )


_ACCOUNTS = (
    "embeddings, head, routers",
    "one block, and the module it is run in",
    "one expert's weights, float32",
    "one expert's statistics",
    "tokens waiting at the experts",
    "tokens between blocks",
    "**while experts are pruned**",
    "XᵀX of all experts of a block, never held",
    "the check of what was saved, where the whole model fits",
    "**the check, where it does not**",
    "**estimate of the job's peak, where it does not**",
)


def _recipe() -> Recipe:
    body = JobBody.model_validate({"model": "m", "method": "sparsegpt", "sparsity": 0.5})
    return Recipe.model_validate(dict(body) | {"pattern": "unstructured"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it into a page where one is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.mixture_memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    show(page(), SECTION, given.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

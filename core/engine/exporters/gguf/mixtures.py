"""Names and settings that mixtures of experts share in llama.cpp."""

from typing import Final

from core.engine.exporters.gguf.family import LLAMA_MODULES, Config
from core.engine.exporters.gguf.refusal import refusal

GATE_UP_EXPERTS: Final = ("ffn_gate_exps", "ffn_up_exps")
DOWN_EXPERTS: Final = ("ffn_down_exps",)
STACKS: Final = {"mlp.experts.gate_up_proj": GATE_UP_EXPERTS, "mlp.experts.down_proj": DOWN_EXPERTS}
MODULES: Final = {
    **{module: name for module, name in LLAMA_MODULES.items() if not module.startswith("mlp.")},
    "mlp.gate": "ffn_gate_inp",
}
"""Modules of a block whose FFN is a router and its experts."""


def require_gates(config: Config, *, normalised: bool) -> None:
    """Require that gates of a token's experts are normalised, or are not, as llama.cpp has it of this family."""
    if bool(config["norm_topk_prob"]) != normalised:
        has, instead = ("gates that are not normalised", "gates that are")
        if not normalised:
            has, instead = ("normalised gates", "gates that are not")
        raise refusal(f"{has} (norm_topk_prob)", instead)

"""Names and settings that mixtures of experts share in llama.cpp."""

from typing import Final

from core.engine.exporters.gguf.family import LLAMA_MODULES, Config, Floats, Keys, Part
from core.engine.exporters.gguf.refusal import refusal


def unchanged(heads: int, keys: Keys, parameter: Floats) -> Floats:
    """Return a parameter as it is."""
    return parameter


GATE_UP_EXPERTS: Final[dict[str, Part]] = {
    "ffn_gate_exps.weight": lambda heads, keys, stack: stack[:, : stack.shape[1] // 2],
    "ffn_up_exps.weight": lambda heads, keys, stack: stack[:, stack.shape[1] // 2 :],
}
"""Parts of a stack [experts, rows, columns] whose rows are the gates and then the channels of each expert."""
DOWN_EXPERTS: Final[dict[str, Part]] = {"ffn_down_exps.weight": unchanged}
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


SHARED_EXPERTS: Final = {
    f"mlp.shared_experts.{module}_proj": f"ffn_{module}_shexp" for module in ("gate", "up", "down")
}
ROUTER_BIAS: Final[dict[str, dict[str, Part]]] = {"mlp.gate.e_score_correction_bias": {"exp_probs_b.bias": unchanged}}
_SOFTMAX, _SIGMOID = 1, 2
"""llama.cpp's numbers of what makes scores of a router's outputs."""


def router_keys(config: Config, *, has_sigmoid: bool) -> Keys:
    """Return the keys of a router beside shared experts, where the first layers may have an FFN instead."""
    keys: Keys = {
        "feed_forward_length": int(config["intermediate_size"]),
        "expert_shared_count": int(config["n_shared_experts"]),
        "expert_gating_func": _SIGMOID if has_sigmoid else _SOFTMAX,
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_weights_norm": has_sigmoid and bool(config["norm_topk_prob"]),
    }
    groups = int(config["n_group"] or 1)
    if groups == 1:
        return keys
    return keys | {"expert_group_count": groups, "expert_group_used_count": int(config["topk_group"])}

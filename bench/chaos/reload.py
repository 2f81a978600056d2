"""Open artifacts as their users do: `python -m bench.chaos.reload FOLDER …` writes a line of JSON for each.

`finite`: whether the logits of a few tokens are; `zeros`: of each linear layer, by its name; or `error`.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM


def opened(folder: str) -> dict[str, object]:
    try:
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.inference_mode():
            logits = model(torch.arange(8).unsqueeze(0)).logits
    except Exception as error:  # whatever it is, it is what is told
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    zeros = {
        name: int((module.weight == 0).sum())
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    return {"finite": bool(torch.isfinite(logits).all()), "zeros": zeros}


def main() -> None:
    torch.set_num_threads(1)
    for folder in sys.argv[1:]:
        print(json.dumps(opened(folder)), flush=True)


if __name__ == "__main__":
    main()

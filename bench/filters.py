"""Accuracy lost by `filter-l1` and `filter-taylor`: `OMP_NUM_THREADS=1 python -m bench.filters` prints a table.

Each of five networks for a set of images loses 40 % of its parameters, and is then trained by 300 steps on all training
images. Dense networks are kept in .cache/bench/claims. It takes half an hour on one core.
"""

import statistics
from typing import Any

from bench.claims.data import digits, fashion_mnist
from bench.claims.networks import RETRAINING_RATE, VGG, Recipe, outcome, pruned, train, trained
from core.engine.datasets.image_set import draw_images

_SHARE, _STEPS, _SEEDS = 0.4, 300, range(5)
_FEW = 128
"""Default number of calibration images of a job."""
_RECIPES = {"digits": Recipe("digits", {**VGG.network, "image_size": 28}, steps=600), "fashion-mnist": VGG}
_LINES: dict[str, tuple[str, int | None, dict[str, Any]]] = {
    "filter-l1": ("filter-l1", None, {}),
    "filter-taylor, `retrain_steps` 0": ("filter-taylor", None, {"retrain_steps": 0}),
    "filter-taylor": ("filter-taylor", None, {}),
    f"filter-taylor, `retrain_steps` 0, {_FEW} images": ("filter-taylor", _FEW, {"retrain_steps": 0}),
    f"filter-taylor, {_FEW} images": ("filter-taylor", _FEW, {}),
}
"""Methods, numbers of calibration images (None: all), and parameters."""


def main() -> None:
    print(f"| images | method | pruned | {_STEPS} steps later |\n|:--|:--|--:|--:|")
    for name, recipe in _RECIPES.items():
        lost: dict[str, list[tuple[float, float]]] = {}
        for seed in _SEEDS:
            data = fashion_mnist() if name == "fashion-mnist" else digits(seed, enlarged=True)
            dense = trained(recipe, data.train, seed)
            before = outcome(dense, data.test).error
            for line, (method, count, parameters) in _LINES.items():
                images = draw_images(data.train, count, seed)
                model, _ = pruned(dense, method, _SHARE, images, pattern="structured", seed=seed, **parameters)
                at_once = outcome(model, data.test).error - before
                train(model, data.train, _STEPS, RETRAINING_RATE, seed=seed)
                lost.setdefault(line, []).append((at_once, outcome(model, data.test).error - before))
        for line, points in lost.items():
            cells = [
                f"{statistics.mean(each) * 100:.2f} ± {statistics.stdev(each) * 100:.2f}"
                for each in zip(*points, strict=True)
            ]
            print(f"| {name} | {line} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

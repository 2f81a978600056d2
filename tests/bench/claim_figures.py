"""Figures by which every question of a claim is answered yes, and others by which every one is answered no."""

from typing import Any

from bench.claims.claim import Run

Lines = dict[str, dict[float | str, float]]


def run(panels: dict[str, Lines], **facts: float) -> Run:
    """`facts` in Python's names, `_` for a blank."""
    curves = {panel: {line: list(points.items()) for line, points in lines.items()} for panel, lines in panels.items()}
    return Run(curves, {name.replace("_", " "): value for name, value in facts.items()})


def flat(value: float, *xs: float | str) -> dict[float | str, float]:
    return dict.fromkeys(xs, value)


def _damage(obd: float, actual: float) -> Run:
    places = (0.2, 0.3, 0.4, 0.5, 0.6)
    return run(
        {
            "loss": {"obd": flat(obd, *places), "magnitude": flat(1.0, *places)},
            "prediction": {"predicted": flat(0.1, 0.2), "actual": flat(actual, 0.2)},
            "error": {},
        }
    )


def _retrained(after: float, without: float) -> Run:
    lines = {"retrained": after, "not retrained": without, "dense, trained as long": 0.05}
    return run({"error": {name: flat(value, 0.5, 0.7) for name, value in lines.items()}})


def _surgeon(losses: tuple[float, float, float], solved: tuple[float, float, float], shares: tuple[float, ...]) -> Run:
    methods = ("obs", "obd", "magnitude")
    monks = ("MONK-1", "MONK-2", "MONK-3")
    return run(
        {
            "loss": {m: flat(v, 0.2, 0.3, 0.4, 0.5) for m, v in zip(methods, losses, strict=True)},
            "xor": {m: flat(v, "solved") for m, v in zip(methods, solved, strict=True)},
            "monks": {m: flat(v, *monks) for m, v in zip(methods, shares, strict=True)},
        }
    )


def _connections(error: float, iterative: float, first: float) -> Run:
    return run(
        {
            "error": {
                "no retraining": flat(error, 0.4, 0.5),
                "iterative": flat(iterative, 0.98),
                "one shot, retrained": flat(0.2, 0.98),
            },
            "sensitivity": {"body.0": flat(first, 0.8), "body.2": flat(1.0, 0.8)},
        },
        dense_error=0.1,
    )


def _filters(smallest: float, after: float, flops: float) -> Run:
    places = (0.2, 0.4, 0.6)
    facts = {
        "dense error": 0.1,
        "FLOPs removed with 20 % of parameters": flops,
        "error with 90 % of one convolution gone, retrained": after,
    }
    return run(
        {
            "before": {
                "smallest": flat(smallest, *places),
                "random": flat(0.4, *places),
                "largest": flat(0.6, *places),
            },
            "after": {"smallest": flat(after, 0.2)},
        },
        **facts,
    )


def _taylor(correlation: float, taylor: float, random: float) -> Run:
    rankings = {"taylor": correlation, "random": 0.0, "minimum_weight": 0.2, "activation": 0.3, "obd": 0.4}
    errors = {"taylor": taylor, "minimum_weight": 0.2, "random": random}
    return run(
        {
            "correlation": {name: flat(value, "Spearman") for name, value in rankings.items()},
            "error": {name: flat(value, 0.3, 0.5, 0.7) for name, value in errors.items()},
        }
    )


def _granularity(finest: float, coarsest: float) -> Run:
    figures = {"weights": finest, "n:m": 0.5, "filters": coarsest, "heads and channels": coarsest}
    return run(
        {
            panel: {name: flat(value, 0.25, 0.5, 0.75) for name, value in figures.items()}
            for panel in ("error", "perplexity")
        }
    )


def _generalising(pruned: float, knee: float) -> Run:
    facts = {f"knee of {name}": knee for name in ("test error", "in-domain perplexity", "out-of-domain perplexity")}
    facts |= {"knee of recall": knee, "dense gap, trained as long": 0.05, "dense error, trained as long": 0.1}
    return run(
        {
            "gap": {"pruned": flat(pruned * 0.05, 0.5)},
            "error": {"test": flat(pruned * 0.1, 0.5)},
            "perplexity": {name: {0.0: 20.0, 0.2: 20.0 * pruned} for name in ("in domain", "out of domain")},
        },
        **facts,
    )


def _seconds(wanda: float, perplexity: float) -> Run:
    return run(
        {
            "perplexity": {"wanda": flat(perplexity, "50 %"), "sparsegpt": flat(50.0, "50 %")},
            "seconds": {"wanda": flat(wanda, "50 %"), "sparsegpt": flat(60.0, "50 %")},
        }
    )


def _few_bits(sparse: float, dense: float) -> Run:
    lines = {"50 % zeros, 4 bits": sparse, "3 bits": dense}
    return run({"perplexity": {name: flat(value, "articles", "source code") for name, value in lines.items()}})


def _pair(build: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> tuple[Run, Run]:
    return build(*good), build(*bad)


_PAIRS = {
    "optimal_brain_damage": _pair(_damage, (0.5, 0.15), (2.0, 0.5)),
    "prune_and_retrain": _pair(_retrained, (0.055, 0.2), (0.3, 0.2)),
    "optimal_brain_surgeon": _pair(
        _surgeon,
        ((0.1, 0.2, 0.3), (1.0, 0.5, 0.5), (0.8, 0.5, 0.4)),
        ((0.3, 0.2, 0.1), (0.5, 1.0, 1.0), (0.4, 0.5, 0.8)),
    ),
    "weights_and_connections": _pair(_connections, (0.102, 0.15, 2.0), (0.2, 0.3, 0.5)),
    "filter_norms": _pair(_filters, (0.3, 0.104, 0.2), (0.9, 0.2, 0.1)),
    "taylor_rankings": _pair(_taylor, (0.9, 0.1, 0.205), (0.1, 0.3, 0.4)),
    "granularity": _pair(_granularity, (0.4, 0.6), (0.6, 0.4)),
    "generalisation": _pair(_generalising, (0.9, 0.5), (1.1, 0.98)),
    "score_or_solve": _pair(_seconds, (30.0, 51.0), (90.0, 60.0)),
    "sparse_and_few_bits": _pair(_few_bits, (40.0, 50.0), (50.0, 50.0)),
}
FAVOURABLE = {name: good for name, (good, _) in _PAIRS.items()}
ADVERSE = {name: bad for name, (_, bad) in _PAIRS.items()}

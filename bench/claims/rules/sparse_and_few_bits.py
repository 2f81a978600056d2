"""Claim 10."""

from bench.claims.claim import Claim, Panel, Part, Run

SPARSE, DENSE = "50 % zeros, 4 bits", "3 bits"
_TEXTS = ("articles", "source code")


def _sparse_is_better(run: Run, text: str) -> bool:
    return run.value("perplexity", SPARSE, text) < run.value("perplexity", DENSE, text)


CLAIM = Claim(
    name="sparse_and_few_bits",
    title="Half of the weights in 4 bits predict better than all of them in 3 bits, which take as many bytes",
    papers=("Frantar, Alistarh: SparseGPT (2023), section 3.5 and its experiments",),
    setup="The model is the [judge](judge.md), whose weights lie on no grid of few bits. SparseGPT sets half of "
    "the weights in the decoder's linear layers to zero, and rounds the others to 4 bits in the same pass. Their file "
    "has a bit for each weight that says whether it is zero, and 4 bits for each other: 3 bits for each weight. GPTQ "
    "rounds all weights to 3 bits. Both read the same Wikipedia windows, which the seed chooses, and have a scale for "
    "each row in each 64 inputs. The perplexity is measured on other articles and on source code of Python.\n\n"
    "GPTQ in 4 bits is shown for comparison, and decides no question.",
    setting={
        "samples": 32,
        "length": 512,
        "windows": 16,
        "group_size": 64,
        "lines": {SPARSE: ("sparsegpt", 0.5, 4), DENSE: ("none", None, 3), "4 bits": ("none", None, 4)},
    },
    parts=tuple(
        Part(
            f"On {text} the perplexity of half of the weights in 4 bits is below that of all in 3 bits.",
            lambda run, text=text: _sparse_is_better(run, text),  # type: ignore[misc]
        )
        for text in _TEXTS
    ),
    panels=(Panel("perplexity", "Perplexity", "", "perplexity", is_logarithmic=True),),
    reads=frozenset({"judge"}),
)

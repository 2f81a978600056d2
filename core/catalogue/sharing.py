"""Weight sharing by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788): how a layer is shared."""

from dataclasses import dataclass

DEFAULT_COMPRESSION = 1 / 8


@dataclass(frozen=True)
class Sharing:
    """A layer whose weights are one of `buckets` values each; `seed`, 64 bits, and a weight's place say which, with
    which sign.
    """

    seed: int
    buckets: int


def sharing_of(weights: int, compression: float, *, seed: int, layer: int) -> Sharing:
    """`compression` is bucket values for each of a layer's `weights`, zeros counted (the paper's compression factor):
    how many are pruned changes how many share a bucket, not how many buckets there are. The layers of a model, by their
    number, hash the same places differently.
    """
    return Sharing(seed * 2**32 + layer, max(1, round(compression * weights)))


def expected_collision_rate(weights: int, buckets: int) -> float:
    """The expected share of `weights`, thrown into `buckets` at random, that are not alone in theirs."""
    return 1 - (1 - 1 / buckets) ** max(0, weights - 1)

"""Weight sharing by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788): the hash of a layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HashSharing:
    """Hash sharing of a layer's weights: each weight has one of `buckets` values.

    `seed`, 64 bits, and a weight's index determine its bucket and its sign.
    """

    seed: int
    buckets: int


def sharing_of(weights: int, compression: float, *, seed: int, layer: int) -> HashSharing:
    """Return the sharing of a layer with this number of `weights`.

    `compression` is the number of bucket values per weight, zeros included (the paper's compression factor): pruning
    changes how many weights share a bucket, not the number of buckets. The number of the `layer` is part of the seed,
    so that each layer of a model hashes the same indices differently.
    """
    return HashSharing(seed * 2**32 + layer, max(1, round(compression * weights)))


def expected_collision_rate(weights: int, buckets: int) -> float:
    """Return the expected share of `weights`, hashed into `buckets` at random, that are not alone in their bucket."""
    return 1 - (1 - 1 / buckets) ** max(0, weights - 1)

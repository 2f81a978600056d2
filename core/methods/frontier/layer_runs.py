"""Choice of the runs of layers that cost least, among all sets of so many layers."""

from collections.abc import Callable, Collection
from math import inf


def least_costly(layers: int, number: int, staying: Collection[int], cost: Callable[[int, int], float]) -> list[int]:
    """Return the `number` of `layers` that can best go whole, none of them `staying`, ascending; fewer where fewer can.

    `cost(first, end)` is that of the run of layers from `first` to before `end`. The sum over the runs that the
    layers make up is the least there is: of those that end at a layer and those before it, the best are known for
    every number, from the first layer on.
    """
    number = min(number, layers - len(set(staying)))
    nothing: tuple[int, ...] = ()
    best = [[(0.0, nothing)] + [(inf, nothing)] * number]  # of so many layers: by the number that goes, sum and layers
    for end in range(1, layers + 1):
        row = list(best[end - 1])
        for first in range(end - 1, max(end - number, 0) - 1, -1):
            if first in staying:
                break
            added = cost(first, end)
            before = best[max(first - 1, 0)]  # the layer before the run stays
            for count in range(end - first, number + 1):
                lost, removed = before[count - (end - first)]
                if lost + added < row[count][0]:
                    row[count] = (lost + added, (*removed, *range(first, end)))
        best.append(row)
    return list(best[layers][number][1])

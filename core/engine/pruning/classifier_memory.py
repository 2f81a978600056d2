"""Memory of pruning and training a loaded image classifier, by the engine's own steps. Without torch.

It follows the engine, allocation by allocation, with the traced facts of the model's passes. Bytes do not include the
weights of the model itself. Letters: I the inputs of a row of a layer's matrix, n its weights, L the positions of an
image at which a layer is applied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.classifier_passes import ClassifierPasses, LayerPass
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.classifier_memory import MEASURED_AT_ONCE, measuring_bytes
from core.engine.pruning.layerwise.waiting import ERROR_ROWS, waiting_bytes

_FLOAT = 4
_COUNT_BYTES = 512
"""Bytes of the optimiser's step count of a parameter: the smallest allocation."""
_NORM_BYTES = 16
"""Bytes per weight for the norm of its filter."""
_NEURON_IMAGES = 32
"""Number of images for the search of dead neurons."""
_COMPARING_BYTES = 13
"""Bytes per weight when all weights are compared: its score, a count of ties, masks, and its score again."""

Solver = Callable[[int, Sequence[int]], int]
"""Bytes of a solver, from the inputs of a matrix, and the weights of matrices that read the same inputs."""


@dataclass(frozen=True)
class LayerwisePruning:
    """Pass over `images` images that prunes layers one after the other, in micro-batches of `batch`.

    `reads` is the statistic of a layer's inputs, "norms" or "gram"; with "none" no image passes. With `waits` all
    images wait before a layer until it is pruned.
    """

    images: int
    batch: int
    waits: bool
    reads: str
    solver: Solver


@dataclass(frozen=True)
class ClassifierMemory:
    """Bytes of the steps on a classifier whose `layers` are pruned."""

    description: ClassifierDescription
    passes: ClassifierPasses
    layers: Sequence[LinearShape]

    @property
    def prunable(self) -> int:
        """Number of weights of the layers."""
        return sum(layer.numel for layer in self.layers)

    @property
    def largest(self) -> int:
        return max(layer.numel for layer in self.layers)

    @property
    def matrices(self) -> int:
        """Bytes of all layers as matrices: for a convolution a copy, for other layers the weight itself."""
        return sum(map(_copied, self.layers))

    def measuring(self, images: int = MEASURED_AT_ONCE) -> int:
        """Return the bytes for accuracy or loss on this many images."""
        return measuring_bytes(self.passes, self.description.classes, images)

    def loss(self, images: int) -> int:
        """Return the bytes for the mean loss on this many images; one batch stays until the next is computed."""
        at_once = min(images, MEASURED_AT_ONCE)
        following = min(images - at_once, at_once)
        return max(self.measuring(at_once), (at_once + following) * self.passes.image)

    def silenced(self, images: int) -> int:
        """Return the bytes for the mean loss with some channels zeroed, or for statistics of layers' inputs."""
        silenced = self.passes.silenced or self.passes.evaluation
        at_once = min(images, MEASURED_AT_ONCE)
        return max(self.loss(images), at_once * _FLOAT * self.description.classes + silenced.of(at_once))

    def looking(self, images: int) -> int:
        """Return the bytes of a forward that sums absolute values of layers' inputs."""
        at_once = min(images, MEASURED_AT_ONCE)
        seen = max((layer.waiting + layer.inputs for layer in self.passes.layers[1:]), default=0)
        return max(self.loss(images), at_once * seen)

    def norms(self) -> int:
        """Return the bytes for the norms of a layer's filters: in float64, and of absolute values."""
        return _NORM_BYTES * self.largest

    def training(self, batch: int) -> int:
        """Return the bytes for training every parameter in such batches, with the pruned weights kept at zero.

        There are two moments and a step count of each parameter, and a byte per weight for the zeros.
        """
        kept = 2 * self.passes.trained + _COUNT_BYTES * self.passes.tensors + self.prunable
        return kept + self.passes.training.of(batch)

    def cutting(self) -> int:
        """Return the bytes for zeroing the smallest weights of one layer after the other."""
        return max(_copied(layer) + 3 * _FLOAT * layer.numel for layer in self.layers)

    def comparing(self) -> int:
        """Return the bytes for choosing the lowest scores of all layers together, without the scores themselves."""
        return self.matrices + _COMPARING_BYTES * self.prunable

    def curvature(self, images: int) -> int:
        """Return the bytes for the curvature in the weights of the layers from this many images.

        More images are processed at once where the model's largest layer is not among the layers.
        """
        sums = _FLOAT * self.prunable
        at_once = self.passes.curved * max(layer.numel for layer in self.description.linears) / self.largest
        share = min(images, at_once, MEASURED_AT_ONCE) / self.passes.curved
        return max(2 * sums, sums + ceil(share * max(0, self.passes.curvature - sums)))

    def finding_dead_neurons(self, images: int) -> int:
        """Return the bytes for finding neurons that nothing reads, on a few images, with a copy of the earlier weights.

        A forward keeps tensors for its backward, with copies of the layers' outputs, and gradients in these.
        """
        few = min(images, _NEURON_IMAGES)
        return self.passes.weights + self.graph(few) + few * self._outputs

    def graph(self, images: int) -> int:
        """Return the bytes that a forward keeps for gradients in the layers' outputs, with copies of the outputs."""
        return self.passes.training.of(images) + images * self._outputs

    @property
    def _outputs(self) -> int:
        widths = {layer.name: layer.out_features for layer in self.description.linears}
        return _FLOAT * sum(layer.positions * widths[layer.name] for layer in self.passes.layers)

    def coupling(self) -> int:
        """Return the bytes for finding coupled channels and removing some.

        A check removes some from a copy of the model: its weights before, the cut ones, and the new parameters are in
        memory.
        """
        return 3 * self.passes.weights + self.passes.evaluation.of(1)

    def gates(self, images: int, *, retains: bool) -> int:
        """Return the bytes for the gradients of gates of all coupled channels on this many images.

        With `retains` the forward's tensors stay for further gradients.
        """
        gated = self.passes.gated_again if retains else self.passes.gated
        return max(self.loss(images), (gated or self.passes.training).of(min(images, MEASURED_AT_ONCE)))

    def layerwise(self, given: LayerwisePruning) -> int:
        """Return the bytes of a pass that prunes layers one after the other."""
        shapes = {layer.name: layer for layer in self.layers}
        if given.reads == "none" or not given.images:
            return max(_pruned(layer, 1, 0, given) for layer in shapes.values())
        return self._in_flight(given, shapes) if given.waits else self._two_passes(given, shapes)

    def _in_flight(self, given: LayerwisePruning, shapes: dict[str, LinearShape]) -> int:
        """Return the peak bytes when all images go from layer to layer, and wait at each until it is pruned."""
        images, batch = given.images, min(given.batch, given.images)
        peak, waited, passing = images * self.passes.image, self.passes.image, 0
        for layer in self.passes.layers:
            passing = max(passing, layer.passing)
            if layer.name not in shapes:
                continue
            statistic = _statistic(layer, shapes[layer.name], given, images)
            peak = max(
                peak,
                waiting_bytes(images, batch, waited, layer.waiting, passing) + statistic,
                images * layer.waiting + statistic + _unfolding(layer, batch),
                images * layer.waiting
                + statistic
                + _pruned(shapes[layer.name], layer.groups, _rows(layer, images), given),
            )
            waited, passing = layer.waiting, 0
        return peak

    def _two_passes(self, given: LayerwisePruning, shapes: dict[str, LinearShape]) -> int:
        """Return the peak bytes when statistics of all layers are gathered first, and layers are pruned afterwards."""
        image, read = self.passes.image, [layer for layer in self.passes.layers if layer.name in shapes]

        def statistics(layers: Sequence[LayerPass], images: int) -> int:
            return sum(_statistic(layer, shapes[layer.name], given, images) for layer in layers) if images else 0

        peak = statistics(read, given.images) + max(
            _pruned(shapes[layer.name], layer.groups, _rows(layer, given.images), given) for layer in read
        )
        full = min(given.batch, given.images)
        last = given.images % full or full
        for before, batch in {(0, full), (max(0, given.images - last - full), full), (given.images - last, last)}:
            done: list[LayerPass] = []
            for layer in self.passes.layers:
                own = layer.passing - image
                if layer.name in shapes:
                    done.append(layer)
                    own = max(own, layer.waiting - image + _unfolding(layer, batch) // batch)
                taken = statistics(done, before + batch) + statistics(read[len(done) :], before)
                peak = max(peak, taken + batch * own)
        return given.images * image + peak


def _copied(layer: LinearShape) -> int:
    return _FLOAT * layer.numel if layer.kernel > 1 else 0


def _rows(layer: LayerPass, images: int) -> int:
    """Return the number of rows of a layer's inputs that are kept to measure errors."""
    rows = layer.positions * images
    return ceil(rows / max(1, rows // ERROR_ROWS))


def _statistic(layer: LayerPass, shape: LinearShape, given: LayerwisePruning, images: int) -> int:
    """Return the bytes of the statistic of a layer's inputs, over all its groups, after this many images."""
    of_row = shape.in_features if given.reads == "gram" else 1 + _rows(layer, given.images) * images // given.images
    return _FLOAT * layer.groups * shape.in_features * of_row


def _unfolding(layer: LayerPass, batch: int) -> int:
    return min(batch, layer.at_once) * layer.unfolding


def _pruned(shape: LinearShape, groups: int, rows: int, given: LayerwisePruning) -> int:
    """Return the bytes while a layer is pruned group by group, its errors are measured, and its weight is set.

    They are the pruned groups with one group's difference and the products that measure it; or all groups put together,
    with a copy in the shape of the layer's weight.
    """
    weights, part = _FLOAT * shape.numel, _FLOAT * shape.numel // groups
    outputs = shape.out_features // groups
    measured = 0
    if given.reads == "gram":
        measured = 3 * part
    elif given.reads == "norms":
        measured = part + _FLOAT * rows * (outputs + max(outputs, shape.in_features))
    solving = weights - part + given.solver(shape.in_features, [shape.numel // groups])
    return _copied(shape) + max(solving, weights + measured, 3 * weights)

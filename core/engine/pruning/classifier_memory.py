"""Memory that pruning and training of a loaded image classifier take, by the engine's own steps. Without torch.

It follows the engine, allocation by allocation, with what a trace of the model has found of its passes. Bytes are those
beside the weights of the model itself. Letters: I the inputs of a row of a layer's matrix, n its weights, L the
positions of an image that a layer is applied at.
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
"""Bytes of the optimiser's count of steps of a parameter: the least that is allocated."""
_NORM_BYTES = 16
"""Bytes of a weight while its filter's norm is taken."""
_LOOKED_AT = 32
"""Images on which neurons are looked at."""
_COMPARED = 13
"""Bytes of a weight while all of a model's are compared: its score, a count of ties, masks, and its score again."""

Solver = Callable[[int, Sequence[int]], int]
"""Bytes that a solver holds, by the inputs of a matrix, and the weights of matrices that read the same."""


@dataclass(frozen=True)
class LayerwisePruning:
    """A pass over so many images by which layers are pruned one after the other, in micro-batches of `batch`.

    `reads` is the statistic of a layer's inputs, "norms" or "gram"; "none": then no image passes. `waits`: all images
    wait in front of a layer until it is pruned.
    """

    images: int
    batch: int
    waits: bool
    reads: str
    solver: Solver


@dataclass(frozen=True)
class ClassifierMemory:
    """Bytes of what is done to a classifier of which these `layers` are pruned."""

    description: ClassifierDescription
    passes: ClassifierPasses
    layers: Sequence[LinearShape]

    @property
    def prunable(self) -> int:
        """Weights of the layers."""
        return sum(layer.numel for layer in self.layers)

    @property
    def largest(self) -> int:
        """Weights of the largest of the layers."""
        return max(layer.numel for layer in self.layers)

    @property
    def matrices(self) -> int:
        """Bytes of all layers as matrices: of a convolution a copy, of other layers the weight itself."""
        return sum(map(_copied, self.layers))

    def measuring(self, images: int = MEASURED_AT_ONCE) -> int:
        """Return the bytes of accuracy or loss on so many images."""
        return measuring_bytes(self.passes, self.description.classes, images)

    def loss(self, images: int) -> int:
        """Return the bytes of the mean loss on so many images: those of one batch are there until the next are."""
        at_once = min(images, MEASURED_AT_ONCE)
        following = min(images - at_once, at_once)
        return max(self.measuring(at_once), (at_once + following) * self.passes.image)

    def silenced(self, images: int) -> int:
        """Return the bytes of the mean loss with some channels zeroed, or of what layers read of them."""
        silenced = self.passes.silenced or self.passes.evaluation
        at_once = min(images, MEASURED_AT_ONCE)
        return max(self.loss(images), at_once * _FLOAT * self.description.classes + silenced.of(at_once))

    def looking(self, images: int) -> int:
        """Return the bytes of a forward in which absolute values of what layers read of others are summed."""
        at_once = min(images, MEASURED_AT_ONCE)
        seen = max((layer.waiting + layer.inputs for layer in self.passes.layers[1:]), default=0)
        return max(self.loss(images), at_once * seen)

    def norms(self) -> int:
        """Return the bytes of the norms of a layer's filters: in float64, and of absolute values."""
        return _NORM_BYTES * self.largest

    def training(self, batch: int) -> int:
        """Return the bytes of training every parameter in such batches, with the zeros of the layers held.

        There are two moments of each parameter and a count of steps, and a byte of each weight for the zeros.
        """
        kept = 2 * self.passes.trained + _COUNT_BYTES * self.passes.tensors + self.prunable
        return kept + self.passes.training.of(batch)

    def cutting(self) -> int:
        """Return the bytes of zeroing the smallest weights of one layer after the other."""
        return max(_copied(layer) + 3 * _FLOAT * layer.numel for layer in self.layers)

    def comparing(self) -> int:
        """Return the bytes of choosing the lowest scores of all layers together, the scores themselves left out."""
        return self.matrices + _COMPARED * self.prunable

    def curvature(self, images: int) -> int:
        """Return the bytes of the curvature in the weights of the layers from so many images.

        More images are taken at once where the largest layer of the model is left out.
        """
        sums = _FLOAT * self.prunable
        at_once = self.passes.curved * max(layer.numel for layer in self.description.linears) / self.largest
        share = min(images, at_once, MEASURED_AT_ONCE) / self.passes.curved
        return max(2 * sums, sums + ceil(share * max(0, self.passes.curvature - sums)))

    def finding_dead_neurons(self, images: int) -> int:
        """Return the bytes of finding neurons that nothing reads, on a few images, beside the weights as they were.

        There are a forward that keeps what its backward needs, copies of the layers' outputs, and gradients in these.
        """
        few = min(images, _LOOKED_AT)
        return self.passes.weights + self.graph(few) + few * self._outputs

    def graph(self, images: int) -> int:
        """Return the bytes that a forward keeps for gradients in the layers' outputs, with copies of these."""
        return self.passes.training.of(images) + images * self._outputs

    @property
    def _outputs(self) -> int:
        """Bytes of an image's outputs of all layers."""
        widths = {layer.name: layer.out_features for layer in self.description.linears}
        return _FLOAT * sum(layer.positions * widths[layer.name] for layer in self.passes.layers)

    def coupling(self) -> int:
        """Return the bytes of finding coupled channels and removing some.

        A copy of the model loses some for a check: there are its weights before, those cut out, and the new parameters.
        """
        return 3 * self.passes.weights + self.passes.evaluation.of(1)

    def gates(self, images: int, *, retains: bool) -> int:
        """Return the bytes of the gradients of gates of all coupled channels on so many images.

        `retains`: what a forward has kept stays for further gradients.
        """
        gated = self.passes.gated_again if retains else self.passes.gated
        return max(self.loss(images), (gated or self.passes.training).of(min(images, MEASURED_AT_ONCE)))

    def layerwise(self, given: LayerwisePruning) -> int:
        """Return the bytes of a pass by which layers are pruned one after the other."""
        shapes = {layer.name: layer for layer in self.layers}
        if given.reads == "none" or not given.images:
            return max(_pruned(layer, 1, 0, given) for layer in shapes.values())
        return self._in_flight(given, shapes) if given.waits else self._two_passes(given, shapes)

    def _in_flight(self, given: LayerwisePruning, shapes: dict[str, LinearShape]) -> int:
        """Return the most bytes while all images go from layer to layer, and wait there until it is pruned."""
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
        """Return the most bytes while statistics of all layers are taken, and then while each is pruned."""
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
    """Return how many rows of a layer's inputs are kept to measure errors on."""
    rows = layer.positions * images
    return ceil(rows / max(1, rows // ERROR_ROWS))


def _statistic(layer: LayerPass, shape: LinearShape, given: LayerwisePruning, images: int) -> int:
    """Return the bytes of the statistic of a layer's inputs, of all its groups, when so many images have passed."""
    of_row = shape.in_features if given.reads == "gram" else 1 + _rows(layer, given.images) * images // given.images
    return _FLOAT * layer.groups * shape.in_features * of_row


def _unfolding(layer: LayerPass, batch: int) -> int:
    return min(batch, layer.at_once) * layer.unfolding


def _pruned(shape: LinearShape, groups: int, rows: int, given: LayerwisePruning) -> int:
    """Return the bytes while a layer is pruned, group by group, its errors are measured, and it is set.

    There are the pruned groups; of one its difference, and the products that measure it; or all of them put together,
    and in the shape of the layer's weight.
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

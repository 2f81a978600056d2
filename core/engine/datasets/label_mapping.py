"""Mapping from the classes of an image set to those of a model."""

from collections.abc import Callable, Sequence

from core.engine.datasets.image_source import ImageRows
from core.errors import UnusableDataset

_NAMED = 5


def model_labels(rows: ImageRows, labels: Sequence[str], name: str, note: Callable[[str], None]) -> list[int]:
    """Return, for each class of a set, the model's output that stands for it.

    Classes match by name where every class of the set is a label of the model; by number, with a note, where none is,
    or where the set's labels have no names. Raises UnusableDataset, naming class or row, where only some are, and where
    a number is none of the model's outputs.
    """
    outputs = {label: number for number, label in enumerate(labels)}
    known = [each in outputs for each in rows.class_names]
    if rows.class_names and all(known):
        numbers = [outputs[each] for each in rows.class_names]
        if numbers != list(range(len(numbers))):
            note(f"{name}: its classes are in another order than the model's labels; they were matched by name")
        return numbers
    if any(known):
        strange = [each for each, is_known in zip(rows.class_names, known, strict=True) if not is_known]
        raise UnusableDataset(
            f"{name}: {', '.join(map(repr, strange[:_NAMED]))}{' …' if len(strange) > _NAMED else ''} "
            f"{'is no label' if len(strange) == 1 else 'are no labels'} of the model, the other classes are: rename or "
            "remove",
            param="label_field",
        )
    row = next((row for row, label in enumerate(rows.labels) if label >= len(labels)), None)
    if row is not None:
        label = rows.labels[row]
        named = f" ({rows.class_names[label]!r})" if rows.class_names else ""
        raise UnusableDataset(
            f"{name}: {rows.name(row)} has label {label}{named}; the model has {len(labels)} classes, 0 to "
            f"{len(labels) - 1}",
            param="label_field",
        )
    if rows.class_names:
        note(
            f"{name}: none of its class names ({', '.join(rows.class_names[:_NAMED])}"
            f"{' …' if len(rows.class_names) > _NAMED else ''}) is a label of the model; class k was taken as output k"
        )
    return list(range(len(labels)))

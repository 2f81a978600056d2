"""Catalogue of methods, with their papers. The engine binds an implementation to each id."""

from core.catalogue.classifier_methods import CLASSIFIER_METHODS
from core.catalogue.language_methods import LANGUAGE_METHODS
from core.catalogue.method_info import MethodInfo
from core.errors import UnknownMethod

METHODS: dict[str, MethodInfo] = {method.id: method for method in (*LANGUAGE_METHODS, *CLASSIFIER_METHODS)}


def get_method(method_id: str) -> MethodInfo:
    """Return the catalogue entry; raises UnknownMethod listing the ids there are."""
    try:
        return METHODS[method_id]
    except KeyError:
        raise UnknownMethod(
            f"method {method_id!r} is not known: use one of {', '.join(sorted(METHODS))}", param="method"
        ) from None

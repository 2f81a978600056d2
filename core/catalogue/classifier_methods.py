"""The methods for image classifiers, with their papers; some prune the linear layers of language models too."""

from core.catalogue.method_info import MethodInfo

CLASSIFIER_METHODS: tuple[MethodInfo, ...] = ()

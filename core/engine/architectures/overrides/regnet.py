"""RegNet."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture("regnet", "RegNetForImageClassification", "RegNet", order=30, head="classifier.1")

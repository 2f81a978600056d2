"""ConvNeXt."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture("convnext", "ConvNextForImageClassification", "ConvNeXt", order=40)

"""ResNet."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture("resnet", "ResNetForImageClassification", "ResNet", order=10, head="classifier.1")

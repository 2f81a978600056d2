"""MobileNetV2."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture("mobilenet_v2", "MobileNetV2ForImageClassification", "MobileNetV2", order=20)

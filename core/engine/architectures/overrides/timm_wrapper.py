"""Classifiers that timm builds, wrapped by transformers: the head has another name in each."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture(
    "timm_wrapper", "TimmWrapperForImageClassification", "timm", order=70, head="", prefix="timm_model."
)

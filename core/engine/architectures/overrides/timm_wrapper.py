"""Classifiers of timm in the wrapper of transformers; the head's name differs from one to another."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture(
    "timm_wrapper", "TimmWrapperForImageClassification", "timm", order=70, head="", prefix="timm_model."
)

"""ViT."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from core.engine.architectures.vit_like import RENAMES

ARCHITECTURE = ClassifierArchitecture("vit", "ViTForImageClassification", "ViT", order=50, renames=RENAMES)

"""DeiT, whose files have ViT's names."""

from core.engine.architectures.classifier_architecture import ClassifierArchitecture
from core.engine.architectures.vit_like import RENAMES

ARCHITECTURE = ClassifierArchitecture("deit", "DeiTForImageClassification", "DeiT", order=60, renames=RENAMES)

"""Small networks of the classical papers, which this project defines itself."""

from core.engine.architectures.classifier_architecture import REFERENCE_TYPE, ClassifierArchitecture

ARCHITECTURE = ClassifierArchitecture(
    REFERENCE_TYPE, "ReferenceNetwork", "Reference network", order=80, head="network.head"
)

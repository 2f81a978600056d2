"""The methods for language models, with their papers; some prune the layers of image classifiers too."""

from core.catalogue.adapted_parameters import LoRAPruneParameters, LoRAShearParameters
from core.catalogue.method_info import MethodInfo, Needs, Paper
from core.catalogue.parameters import (
    BonsaiParameters,
    DepthParameters,
    L2StructuredParameters,
    LLMPrunerParameters,
    MagnitudeParameters,
    RandomParameters,
    RandomStructuredParameters,
    RecoverParameters,
    SparseGPTParameters,
    WandaParameters,
)
from core.catalogue.sensitivity_parameters import SensitivityParameters

_WEIGHTS = ("unstructured", "n:m")
_GROUPS = ("structured",)
_LANGUAGE = ("language-model",)
_BOTH = ("language-model", "image-classification")

LANGUAGE_METHODS: tuple[MethodInfo, ...] = (
    MethodInfo(
        id="random",
        title="Random",
        summary="Weights removed at random: the baseline every other method must beat.",
        paper=None,
        task_families=_BOTH,
        patterns=_WEIGHTS,
        needs=Needs(calibration=False, gradients=False, training=False),
        parameters=RandomParameters,
    ),
    MethodInfo(
        id="magnitude",
        title="Magnitude",
        summary="Removes the weights of smallest absolute value.",
        paper=Paper(
            title="Learning both Weights and Connections for Efficient Neural Networks",
            authors="Han, Pool, Tran, Dally",
            year=2015,
            url="https://arxiv.org/abs/1506.02626",
        ),
        task_families=_BOTH,
        patterns=_WEIGHTS,
        needs=Needs(calibration=False, gradients=False, training=False),
        parameters=MagnitudeParameters,
    ),
    MethodInfo(
        id="wanda",
        title="Wanda",
        summary="Removes, in every output row, the weights of smallest |weight| times input norm. No update.",
        paper=Paper(
            title="A Simple and Effective Pruning Approach for Large Language Models",
            authors="Sun, Liu, Bair, Kolter",
            year=2023,
            url="https://arxiv.org/abs/2306.11695",
        ),
        task_families=_BOTH,
        patterns=_WEIGHTS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=WandaParameters,
    ),
    MethodInfo(
        id="sparsegpt",
        title="SparseGPT",
        summary="Removes weights column block by column block and updates the rest to keep each layer's outputs.",
        paper=Paper(
            title="SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
            authors="Frantar, Alistarh",
            year=2023,
            url="https://arxiv.org/abs/2301.00774",
        ),
        task_families=_BOTH,
        patterns=_WEIGHTS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=SparseGPTParameters,
    ),
    MethodInfo(
        id="random-structured",
        title="Random, structured",
        summary="Heads and channels removed at random: the baseline every other structured method must beat.",
        paper=None,
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=False, gradients=False, training=False),
        parameters=RandomStructuredParameters,
    ),
    MethodInfo(
        id="l2-structured",
        title="L2 norm, structured",
        summary="Removes the heads and channels whose weights have the smallest L2 norm: a warning, not advice.",
        paper=None,
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=False, gradients=False, training=False),
        parameters=L2StructuredParameters,
    ),
    MethodInfo(
        id="llm-pruner",
        title="LLM-Pruner",
        summary="Removes the heads and channels whose weights matter least to the loss, by its Taylor expansion.",
        paper=Paper(
            title="LLM-Pruner: On the Structural Pruning of Large Language Models",
            authors="Ma, Fang, Wang",
            year=2023,
            url="https://arxiv.org/abs/2305.11627",
        ),
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=True, gradients=True, training=False),
        parameters=LLMPrunerParameters,
    ),
    MethodInfo(
        id="bonsai",
        title="Bonsai",
        summary="Removes the heads and channels that measured perplexity suffers least without: masked sub-models "
        "are run forward, and each unit's importance is regressed from theirs.",
        paper=Paper(
            title="Everybody Prune Now: Structured Pruning of LLMs with only Forward Passes",
            authors="Dery, Kolawole, Kagy, Smith, Neubig, Talwalkar",
            year=2024,
            url="https://arxiv.org/abs/2402.05406",
        ),
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=BonsaiParameters,
    ),
    MethodInfo(
        id="loraprune",
        title="LoRAPrune",
        summary="Removes heads and channels little by little while low-rank adapters are trained, scored by the "
        "adapters' gradients alone.",
        paper=Paper(
            title="LoRAPrune: Structured Pruning Meets Low-Rank Parameter-Efficient Fine-Tuning",
            authors="Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang",
            year=2023,
            url="https://arxiv.org/abs/2305.18403",
        ),
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=True, gradients=True, training=True),
        parameters=LoRAPruneParameters,
    ),
    MethodInfo(
        id="lorashear",
        title="LoRAShear",
        summary="Has heads and channels shrink to zero while low-rank adapters move what they know into the rest; "
        "spares those whose absence alone costs most.",
        paper=Paper(
            title="LoRAShear: Efficient Large Language Model Structured Pruning and Knowledge Recovery",
            authors="Chen, Ding, Yadav, Zharkov, Liang",
            year=2023,
            url="https://arxiv.org/abs/2310.18356",
        ),
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=True, gradients=True, training=True),
        parameters=LoRAShearParameters,
    ),
    MethodInfo(
        id="depth",
        title="Depth",
        summary="Removes whole layers: those perplexity suffers least without, or that turn their input least.",
        paper=Paper(
            title="The Unreasonable Ineffectiveness of the Deeper Layers",
            authors="Gromov, Tirumala, Shapourian, Glorioso, Roberts",
            year=2024,
            url="https://arxiv.org/abs/2403.17887",
        ),
        task_families=_LANGUAGE,
        patterns=_GROUPS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=DepthParameters,
    ),
    MethodInfo(
        id="recover",
        title="Recover",
        summary="Prunes nothing: trains a model that was pruned before, or any other, and keeps every zero it has. "
        "What is trained, and how, is the job's recovery.",
        paper=None,
        task_families=_BOTH,
        patterns=(),
        needs=Needs(calibration=False, gradients=True, training=True),
        parameters=RecoverParameters,
    ),
    MethodInfo(
        id="sensitivity",
        title="Sensitivity",
        summary="Prunes nothing: measures the loss against the pruning rate of each layer alone, for any method that "
        "makes weights zero. A later job takes its layers' rates from it.",
        paper=Paper(
            title="Learning both Weights and Connections for Efficient Neural Networks",
            authors="Han, Pool, Tran, Dally",
            year=2015,
            url="https://arxiv.org/abs/1506.02626",
        ),
        task_families=("language-model", "image-classification"),
        patterns=(),
        needs=Needs(calibration=False, gradients=False, training=False),
        parameters=SensitivityParameters,
    ),
)

"""The methods for language models, with their papers; some prune the layers of image classifiers too."""

from core.catalogue.adapted_parameters import LoRAPruneParameters, LoRAShearParameters
from core.catalogue.parameters import (
    ADMMParameters,
    BonsaiParameters,
    DepthParameters,
    FrontierParameters,
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
from core.methods.method_info import SMALLER, UNCHANGED, ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs, Paper

_WEIGHTS = ("unstructured", "n:m")
_GROUPS = ("structured",)
_LANGUAGE = ("language-model",)
_BOTH = ("language-model", "image-classification")

LANGUAGE_METHODS: tuple[MethodInfo, ...] = (
    MethodInfo(
        id="random",
        title="Random",
        summary="Weights removed at random: the baseline every other method must beat.",
        description="Which weights go is left to chance, within each layer. It is here to compare with: a method that "
        "does not do clearly better than this on your model is not worth its time. It needs no data and is as fast as "
        "the weights can be read.",
        gains=ZEROS_OR_N_M,
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
        description="Removes the smallest weights, the oldest and simplest rule. It needs no data and is done as "
        "fast as the weights can be read. Image classifiers take it well up to about half of their "
        "weights; large language models do not, because a small weight behind a large activation "
        "matters: there Wanda costs little more and keeps far more.",
        gains=ZEROS_OR_N_M,
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
        description="Looks at each weight together with how strong its input is on a calibration text, and "
        "removes the weakest of every output row. One forward pass, no training, no change to the "
        "weights that stay. A good first choice for a language model at up to about half of its "
        "weights; beyond that SparseGPT or recovery keeps more.",
        gains=ZEROS_OR_N_M,
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
        description="Goes through each layer column by column, removes what costs least and moves the remaining "
        "weights so that the layer's outputs on the calibration text change as little as they can. "
        "Slower than Wanda, as it solves a linear system for each layer, and usually better at high "
        "sparsities and with n:m.",
        gains=ZEROS_OR_N_M,
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
        id="admm",
        title="ADMM",
        summary="Finds each layer's mask and weights together, in turns, while sparsity rises.",
        description="Solves each layer for its outputs on the calibration text again and again, each time without the "
        "weights that have become smallest, until all that should go are gone. It finds better masks than SparseGPT, "
        "most of all where much goes, for somewhat more time.",
        gains=ZEROS_OR_N_M,
        paper=Paper(
            title="Fast and Effective Weight Update for Pruned Large Language Models",
            authors="Boža",
            year=2024,
            url="https://arxiv.org/abs/2401.02938",
        ),
        task_families=_LANGUAGE,
        patterns=_WEIGHTS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=ADMMParameters,
    ),
    MethodInfo(
        id="frontier",
        title="Frontier",
        summary="ADMM where layers lose what they can best spare, fitted to the dense model on your text and its own.",
        description="Removes what ADMM removes, but lets the dense model run beside the pruned one and fits each "
        "layer to what the dense model gave, with what the pruned layers before it now feed it, and once more when it "
        "is known which weights stay. How much each layer loses follows from what its weights are worth to the "
        "loss. It calibrates on the text you name and on as much that the model writes itself, "
        "so that text of other kinds keeps its quality too. No training, no labels. The usual choice for a language "
        "model.",
        gains=ZEROS_OR_N_M,
        paper=None,
        task_families=_LANGUAGE,
        patterns=_WEIGHTS,
        needs=Needs(calibration=True, gradients=False, training=False),
        parameters=FrontierParameters,
    ),
    MethodInfo(
        id="random-structured",
        title="Random, structured",
        summary="Heads and channels removed at random: the baseline every other structured method must beat.",
        description="Which heads and channels go is left to chance. Like Random it is here to compare with: a "
        "structured method has to beat it. It needs no data.",
        gains=SMALLER,
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
        description="Removes the heads and channels whose weights are smallest as a whole. It needs no data, and "
        "it is often no better, and sometimes worse, than chance: the size of a channel says little "
        "about what the model uses it for.",
        gains=SMALLER,
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
        description="Takes gradients on a little calibration text to estimate how much the loss would rise "
        "without each head and each group of channels, and removes the cheapest. It holds the whole "
        "model and its gradients in memory. The paper recovers with adapters afterwards, and so "
        "should you.",
        gains=SMALLER,
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
        description="Runs many versions of the model with random parts switched off and learns from their "
        "perplexities which heads and channels matter. It needs forward passes only, so as little "
        "memory as running the model, but many of them: hours for a large model with the paper's "
        "budget, minutes with the quick one.",
        gains=SMALLER,
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
        description="Trains small adapters while it removes heads and channels a few at a time, and reads their "
        "importance from the adapters' gradients, which cost little memory. Recovery is part of it. "
        "It takes as long as a fine-tuning run.",
        gains=SMALLER,
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
        description="First finds the heads and channels the model can least do without and spares them, then "
        "shrinks the others towards zero while adapters learn to take over what those knew. It takes "
        "as long as a fine-tuning run, and the paper recovers in two stages afterwards.",
        gains=SMALLER,
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
        description="Removes whole layers, so what is left is an ordinary, shallower model: the most certain "
        "speed-up of all, in proportion to the layers that go. Large models lose surprisingly little with their "
        "first few layers gone; small models lose much. Recovery is advised.",
        gains=SMALLER,
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
        description="Removes nothing. Trains a model that was pruned before, every zero kept, to win back "
        "quality: all weights, low-rank adapters, or against the predictions of the dense model. "
        "Choose under Recovery what is trained and on which text.",
        gains=UNCHANGED,
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
        description="Removes nothing and makes no model. Prunes one layer after the other at several rates, "
        "measures how much the loss rises, and puts it back: the curves show which layers can lose "
        "much. A later job with the parameter allocation set to job:ID spreads its sparsity by them.",
        gains=UNCHANGED,
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

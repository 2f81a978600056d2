"""LoRAShear (Chen, Ding, Yadav, Zharkov, Liang 2023, arXiv:2310.18356): knowledge transfer before removal."""

from core.engine.pruning.protocols.units import StructuredMethod
from core.engine.pruning.units.adapted_model import AdaptedModel
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut
from core.methods.lorashear.bundle_damage import UnitBundle, bundle_damage, most_damaging
from core.methods.lorashear.half_space import HalfSpaceRemoval
from core.methods.lorashear.info import LoRAShearParameters


class LoRAShear(StructuredMethod):
    """Removal by half-space projection, with the groups that hold most knowledge exempt.

    The damage of removing each bundle of groups is measured first: the most damaging are exempt. Then, in periods, the
    rest of a layer's groups with the least |ĝ ⊙ (W + scale·BA)| shrink to zero by half-space projection while adapters
    are trained on the groups that stay.
    """

    weight_reads = 1

    def __init__(self, parameters: LoRAShearParameters) -> None:
        self.parameters = parameters

    def choose(self, context: Scene) -> Cut:
        assert context.calibration is not None
        parameters = self.parameters
        recovery = parameters.training(context.calibration.shape[1])
        adapted = AdaptedModel(context, recovery)
        exempt = self._exempt(context, adapted) if parameters.exempt else []
        removal = HalfSpaceRemoval(
            context,
            adapted,
            steps=recovery.steps,
            periods=parameters.periods,
            epsilon=parameters.epsilon,
            exempt=exempt,
        )
        adapted.train(context.calibration, removal)
        adapted.write_merged()
        return removal.cut

    def _exempt(self, context: Scene, adapted: AdaptedModel) -> list[UnitBundle]:
        assert context.calibration is not None
        probed = context.calibration[: max(1, self.parameters.probed_tokens // context.calibration.shape[1])]
        bundles = bundle_damage(context, adapted, probed, self.parameters.most_bundles)
        exempt = most_damaging(bundles, self.parameters.exempt)
        worst = max(bundles, key=lambda each: each.damage)
        context.say(
            f"of {len(bundles)} bundles of heads and channels {len(exempt)} are exempt; without the costliest, "
            f"{len(worst.units)} {worst.kind} of layer {worst.layer}, the loss rises by {worst.damage:.3f}"
        )
        return exempt

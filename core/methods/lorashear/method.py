"""LoRAShear (Chen, Ding, Yadav, Zharkov, Liang 2023, arXiv:2310.18356): knowledge transfer before removal."""

from core.engine.pruning.protocols.units import UnitMethod
from core.engine.pruning.units.adapter_model import AdapterModel
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits
from core.methods.descriptions.structured import LoRAShearParameters
from core.methods.lorashear.bundle_damage import UnitBundle, bundle_damage, most_damaging
from core.methods.lorashear.half_space import HalfSpaceSchedule


class LoRAShear(UnitMethod):
    """Removal by half-space projection; the groups that hold the most knowledge are exempt.

    The damage of removing each bundle of groups is measured first; the most damaging bundles are exempt. Of the other
    groups, each layer removes those with the least |ĝ ⊙ (W + scale·BA)|: half-space projection shrinks them to zero, in
    periods, while adapters are trained on the groups that stay.
    """

    weight_reads = 1
    tries_models = True

    def __init__(self, parameters: LoRAShearParameters) -> None:
        self.parameters = parameters

    def select(self, context: UnitSelectionContext) -> KeptUnits:
        assert context.calibration is not None
        parameters = self.parameters
        adapter_model = AdapterModel(context, parameters.training(context.calibration.shape[1]))
        exempt = self._exempt(context, adapter_model) if parameters.exempt else []
        schedule = HalfSpaceSchedule(context, adapter_model, parameters, exempt=exempt)
        adapter_model.train(context.calibration, schedule)
        adapter_model.write_merged()
        return schedule.kept

    def _exempt(self, context: UnitSelectionContext, adapter_model: AdapterModel) -> list[UnitBundle]:
        assert context.calibration is not None
        probed = context.calibration[: max(1, self.parameters.probed_tokens // context.calibration.shape[1])]
        bundles = bundle_damage(context, adapter_model, probed, self.parameters.most_bundles)
        exempt = most_damaging(bundles, self.parameters.exempt)
        worst = max(bundles, key=lambda each: each.damage)
        context.log(
            f"of {len(bundles)} bundles of heads and channels {len(exempt)} are exempt; without the costliest, "
            f"{len(worst.units)} {worst.kind} of layer {worst.layer}, the loss rises by {worst.damage:.3f}"
        )
        return exempt

"""The base of the loops that train the weights of a supernet on several tasks at once.

A method derives its loop from ``SupernetLoop`` and adds its own steps; the update of the weights is the same for all.

Shape legend: T tasks.
"""

from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import LOG_EVERY, Loop
from fbnetv5.runs.loss_scale import Floats, LossScale
from fbnetv5.runs.optimization import parameter_groups, with_lr_factors
from fbnetv5.runs.processes import GradientAverage
from fbnetv5.search.config import SupernetConfig

POLICY_RECORDS = 40
"""Maximum number of entries of the history that have all probabilities, besides the last."""
E = TypeVar("E", bound=Entry)
S = TypeVar("S", bound=nn.Module)


class SupernetLoop(Loop[E], Generic[E, S]):
    """The supernet, its optimizer and the scale of its losses; parameters without a gradient do not change."""

    advice = "Start again with a smaller learning rate (weight_lr) or check the images"

    def __init__(
        self, config: SupernetConfig, folder: Path, supernet: S, *, steps: int, max_fan_in: int | None = None
    ) -> None:
        """Set up the optimizer; ``max_fan_in`` is that of ``with_lr_factors``, None for one learning rate for all."""
        super().__init__(
            folder,
            steps=steps,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
            reading=config.data.reading,
            max_skipped=config.max_skipped,
        )
        device = self.accelerator.device
        self.supernet = supernet.to(device).to(memory_format=torch.channels_last).train()
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.named_parameters()}
        groups = parameter_groups(self.names, config.weight_decay)
        if max_fan_in is not None:
            groups = with_lr_factors(groups, max_fan_in)
        self.optimizer = torch.optim.AdamW(groups, lr=config.weight_lr, fused=True)
        self.guard.protect(self.optimizer)
        self.gradients = GradientAverage(self.accelerator, self.supernet.parameters())
        self.scale = LossScale(len(config.tasks), device)
        self._tasks, self._clip_norm = config.tasks, config.clip_norm

    def update_weights(self, sums: Tensor, counts: Tensor, weights: Floats, *, lr: float) -> None:
        """Update the weights on the weighted sum of the tasks' mean losses, each relative to its moving average.

        A skipped step changes neither weights nor averages. It may change the running statistics of batch norm, which
        nothing reads: they are computed anew before a network is evaluated.

        Args:
            sums: [T], the sum of the losses of this process's images, differentiable.
            counts: [T], the number of its labelled images.
            weights: [T], of each task's loss.
            lr: learning rate of the step, which the factors of the optimizer's groups multiply.

        Raises:
            VerificationError: too many steps were skipped, see ``step``.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        pooled_sums, pooled_counts = self.accelerator.reduce(torch.stack([sums.detach(), counts]), "sum")
        factor, scale = self.scale.factors(pooled_sums, pooled_counts, weights)
        # Gradients are averaged over the processes, so each divides by its share of the images.
        totals = (pooled_counts / self.accelerator.num_processes).clamp(min=1e-9)
        objective = (sums / totals * factor.to(sums)).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(objective)
        self.gradients.finish()
        updated = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        live = [parameter for parameter in updated if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(live, self._clip_norm)
        if self.guard.check(self.named(pooled_sums) | {"the gradient": norm}, self.done):
            return
        self.optimizer.step()
        self.scale.values = torch.where(self.guard.skip == 0, scale, self.scale.values)

    def records_policies(self, *, last: bool) -> bool:
        """Whether the entry of the present step has all probabilities of what the search decides.

        These are hundreds of numbers, so a long search records them at every few entries only.
        """
        every = LOG_EVERY * max(1, -(-self.steps // (LOG_EVERY * POLICY_RECORDS)))
        return last or self.done % every == 0

    def named(self, losses: Tensor) -> dict[str, Tensor]:
        """The losses of all tasks [T] by their names in error messages."""
        return {f"the loss of {name}": loss for name, loss in zip(self._tasks, losses, strict=True)}

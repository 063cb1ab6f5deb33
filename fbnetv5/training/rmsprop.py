"""RMSProp with TensorFlow's arithmetic, by timm, and with the skip of an update that the divergence guard needs.

Networks of the MobileNetV3 family are trained with TensorFlow's RMSProp: decay 0.9 and momentum 0.9 (MnasNet, arXiv
1807.11626, section 5; MobileNetV3, arXiv 1905.02244, section 6.1.1), and epsilon 0.001 as in Google's published code of
MnasNet and in timm's recipes. It adds epsilon inside the square root, starts the mean square at 1, and scales a step by
the learning rate before the step enters the momentum. torch's ``RMSprop`` does none of the three, so published learning
rates do not fit it: its first steps are many times larger (https://github.com/pytorch/pytorch/issues/23796 and 32545).
"""

from typing import Any

import torch
from timm.optim import RMSpropTF
from torch import Tensor, nn

from fbnetv5.runs.divergence import Kept

DECAY = 0.9
"""Of the mean square of the gradient."""
EPSILON = 1e-3


class RMSProp(RMSpropTF):  # type: ignore[misc]  # timm has no types
    """timm's RMSProp that, as torch's fused optimizers, changes no parameter and state where ``found_inf`` is 1."""

    found_inf: Tensor | None = None
    """Scalar on the device of the parameters, or None."""

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, lr=lr, alpha=DECAY, eps=EPSILON, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update the parameters that have a gradient."""
        if self.found_inf is None:
            super().step()
            return
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        kept = Kept([*parameters, *(tensor for p in parameters for tensor in self._state_of(p))])
        super().step()
        kept.restore(self.found_inf)

    def _state_of(self, parameter: nn.Parameter) -> list[Tensor]:
        """The mean square and the momentum of a parameter, which begin as timm's do."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["square_avg"] = torch.ones_like(parameter)
            if self.defaults["momentum"] > 0:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        return [tensor for name, tensor in state.items() if name != "step"]

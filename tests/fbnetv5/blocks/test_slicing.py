import torch

from fbnetv5.blocks.slicing import SlicedModule, sliced
from fbnetv5.blocks.specs import InvertedResidual

WHOLE = InvertedResidual(kernel=7, in_channels=16, out_channels=16, expansion=4, squeeze=True)
SMALL = InvertedResidual(kernel=3, in_channels=16, out_channels=16, expansion=2)


def test_a_slice_has_leading_channels_and_the_centre_of_a_kernel() -> None:
    weight = torch.arange(4 * 7 * 7.0).reshape(4, 1, 7, 7)
    view = sliced({"w": weight}, {"w": (2, 1, 3, 3)})["w"]
    assert torch.equal(view, weight[:2, :, 2:5, 2:5])


def test_gradients_and_statistics_reach_the_slices_alone() -> None:
    torch.manual_seed(0)
    whole = WHOLE.build()
    SlicedModule(SMALL.build).bound(whole)(torch.randn(2, 16, 8, 8)).square().sum().backward()
    gradient = whole.get_submodule("depthwise.0").weight.grad
    assert isinstance(gradient, torch.Tensor)
    assert gradient[:32, :, 2:5, 2:5].abs().sum(dim=(1, 2, 3)).min() > 0
    assert gradient.count_nonzero() == gradient[:32, :, 2:5, 2:5].count_nonzero()
    mean = whole.get_buffer("depthwise.1.running_mean")
    assert mean[:32].abs().min() > 0
    assert mean[32:].abs().max() == 0
    assert whole.get_submodule("squeeze.reduce").weight.grad is None


def test_a_slice_follows_the_mode_of_the_whole() -> None:
    block, whole = SlicedModule(SMALL.build), WHOLE.build()
    for training in (False, True):
        block.bound(whole.train(training))
        assert block.module.training is training

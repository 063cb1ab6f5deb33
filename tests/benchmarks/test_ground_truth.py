from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ground_truth
from benchmarks.ground_truth import FREE, TASKS, Subspace, default_subspace, everything, score, wide_subspace
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.scenes import CLASSES, Scenes
from fbnetv5.networks.supernet import Supernet
from fbnetv5.tasks import make_tasks


@pytest.mark.parametrize("subspace", [default_subspace(), wide_subspace(0)], ids=["default", "wide"])
def test_cached_blocks_have_the_losses_of_whole_passes(subspace: Subspace) -> None:
    torch.manual_seed(0)
    supernet = Supernet(subspace.space, make_tasks(TASKS, CLASSES))
    for parameter in supernet.parameters():  # residual blocks start as the identity; here they shall matter
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim == 1 else None
    batch = next(in_order(Scenes("train", size=(32, 32), count=8), batch=8))
    choices = subspace.embed(everything()[[0, 1, 1365, 4095]])
    scores = score(supernet, [supernet.graph(row) for row in choices], batch)
    with torch.no_grad():
        for row, losses in zip(choices, scores, strict=True):
            raw = supernet(normalise(batch.images), row)
            whole = [float(supernet.tasks[name].losses(raw[name], batch).mean()) for name in TASKS]
            assert losses.tolist() == pytest.approx(whole, rel=1e-4)
    assert len(np.unique(scores[:, 2])) == len(choices)


@pytest.mark.parametrize("subspace", [default_subspace(), wide_subspace(1)], ids=["default", "wide"])
def test_only_free_variables_differ(subspace: Subspace) -> None:
    choices = subspace.embed(everything())
    assert tuple(np.flatnonzero(np.ptp(choices, axis=0))) == tuple(sorted(subspace.free))
    assert len(np.unique(choices, axis=0)) == 2 ** len(FREE)
    np.testing.assert_array_equal(
        choices[-1, subspace.free], [subspace.space.choice_counts[n] - 1 for n in subspace.free]
    )


def test_wide_subspaces_have_all_widths_and_variables_of_every_other_kind() -> None:
    subspaces = [wide_subspace(seed) for seed in range(5)]
    decisions = set()
    for subspace in subspaces:
        names = [subspace.space.variables[number].name for number in subspace.free]
        assert names[-4:] == ["p4.width", "p8.width", "p16.width", "p32.width"]
        switches = [name for name in names if "." not in name]
        others = [name for name in names[:-4] if "." in name]
        assert (len(switches), len(others)) == (4, 4)
        owners = {name.partition(".")[0] for name in others}
        assert owners | set(switches) <= set(FREE)
        assert not owners & set(switches)
        decisions |= {name.partition(".")[2] for name in others}
    assert decisions == {"kernel", "expansion", "squeeze"}
    assert len({subspace.free for subspace in subspaces}) == len(subspaces)


def test_the_file_stores_the_losses(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).normal(3.0, 0.05, (2, 16, 3))
    ground_truth.save(losses, np.ones((16, 3)), tmp_path / "some.npz", {})
    scores = ground_truth.load(tmp_path / "some.npz").losses
    assert np.abs(scores - losses.transpose(1, 0, 2)).max() < 1e-4

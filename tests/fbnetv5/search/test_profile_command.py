import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fbnetv5.cli.profile import profile
from fbnetv5.data.config import DataConfig
from fbnetv5.search.profile_command import options_text
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (FourPathSpace(), ""),
        (FourPathSpace(variant="ac"), " --variant ac"),
        (FourPathSpace(variant="a-lite"), " --variant a-lite"),
        (FourPathSpace(variant="c", blocks_per_path=1), " --variant c --blocks-per-path 1"),
        (WideSpace(stages=2), " --space wide --stages 2"),
        (BranchingSpace(encoder="mobilenetv2", copies=2), " --encoder mobilenetv2"),
        (BranchingSpace(encoder="resnet50", width=0.5, copies=2), " --encoder resnet50 --width 0.5"),
        (StageSpace(width=0.25), " --encoder stages --width 0.25"),
    ],
    ids=lambda value: value.label if isinstance(value, Space) else "",
)
def test_options_name_the_space_where_it_is_not_the_usual_one(space: Space, options: str, tmp_path: Path) -> None:
    text = options_text(space, (224, 320), ["cls", "det"], DataConfig(folder="/my images"), tmp_path / "a b")
    rest = ["--resolution", "224x320", "--tasks", "cls,det", "--data", "/my images", "--luts", str(tmp_path / "a b")]
    assert shlex.split(text) == [*options.split(), *rest]
    assert text.startswith(" ")


def test_profile_has_these_options() -> None:
    names = {option for parameter in get_command(profile).params for option in parameter.opts}
    assert names >= {
        "--space",
        "--variant",
        "--stages",
        "--blocks-per-path",
        "--encoder",
        "--width",
        "--resolution",
        "--tasks",
    }
    assert names >= {"--data", "--luts"}

"""How the commands of the pages run in small: what they lack, what is smaller, and which ones only parse.

A command runs as it is written, except that budgets, image sizes and numbers of steps are replaced by tiny ones. Files
and folders that a page supposes, such as ``my-images`` or ``trained/det``, come from the folder that ``conftest.py``
makes.
"""

import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tests.command_line import QUICK, SMALL
from tests.docs.blocks import Command

ONLY_PARSED = {
    "search --cost energy.json=5 *": "needs a file with values; tests/fbnetv5/cli/test_search.py has one",
    "derive runs/latest --cost *": "needs such a run; tests/fbnetv5/cli/test_search.py has one",
    "search *--latency* --device*": "a budget in ms depends on the machine; tests/fbnetv5/cli/test_search.py has one",
    "search --add *": "needs a search with a checkpoint; tests/fbnetv5/cli/test_search.py adds a task to one",
    "search --flops * --flops *": "a family; tests/fbnetv5/search/reinforce/test_family.py has one",
    "branch *--latency*": "a budget in ms depends on the machine; tests/fbnetv5/cli/test_branch.py has one",
    "profile --device a100*": "needs a GPU",
    "profile verify * --run *": "needs a table of the blocks of the run; tests/latency/test_verify.py has one",
    "profile import *": "needs the results of a device; tests/latency/test_bundle.py has some",
    "label *timm:*": "downloads weights",
    "train *--teacher soft-labels": "needs soft labels; tests/fbnetv5/training/test_objective.py has some",
    "derive runs/latest --flops 200M": "tests/fbnetv5/cli/test_derive.py derives from a search",
    "derive runs/latest --flops det=600M,300M": "tests/fbnetv5/cli/test_derive.py derives from a search",
    "derive runs/latest --flops 200M --params 4M": "tests/fbnetv5/cli/test_derive.py derives with two budgets",
    "derive runs/latest --flops 200M --resolutions *": "tests/fbnetv5/cli/test_derive.py derives at two resolutions",
    "* --data crowns *": "needs a package with photographs",
    "label *--ray*": "needs a Ray cluster; tests/fbnetv5/labeling/test_cluster.py has one",
    "export --task cls,det": "the small networks share no block; tests/fbnetv5/deploy/test_export.py has two that do",
    "check * --shape size=*": "needs a graph with such an input; tests/export/trt/test_check.py has one",
    "nars *": "half a minute each; tests/fbnetv5/cli/test_nars.py runs such commands",
    "derive * --flops 300M": "needs a run of nars; tests/fbnetv5/cli/test_nars.py has one",
}
"""Commands that ``test_blocks.py`` parses and nothing runs, with the reason: pattern of the arguments -> reason."""
CONFIGS = {
    "branch": {"steps": 8, "batch": 8, "scenes": [24, 24, 16], "width": 0.25, "score_images": 16, "routing_every": 2},
    "train": {"steps": 4, "batch": 4, "evaluate_every": 2, "checkpoint_every": 2, "held_out": 8, "warmup_steps": 1}
    | {"scenes": [24, 12, 16]},
}
"""Small ``--config`` files by command, ``COMMAND.json``; the files that pages name have the same content."""
SPACE = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
"""The options of the smallest space."""
SMALLER: dict[str, dict[str, str]] = {
    "profile estimate*": {"--resolution": "64x64", **SPACE},
    "profile import*": {},
    "profile verify*": {"--networks": "4", **SPACE, "--resolution": "64x64"},
    "profile bundle*": {"--networks": "0", **SPACE, "--resolution": "64x64"},
    "profile *--encoder*": {"--networks": "0", "--width": "0.25", "--resolution": "64x64"},
    "profile --device cpu --networks*": {"--networks": "0", **SPACE, "--resolution": "64x64"},
    "profile*": {"--networks": "9", **SPACE, "--resolution": "64x64"},
    "search --latency * --table *": {"--latency": "0.15ms@64x64", "--config": str(QUICK), **SPACE},
    "search*": {"--config": str(QUICK), **SPACE},
    "branch*": {"--config": "branch.json"},
    "derive * --pool *": {"--flops": "15M"},
    "train --resume*": {},
    "train*": {"--config": "train.json", "--size": "32x32"},
}
"""Options by command, which replace those of the page or are added: the first pattern that matches decides."""
BUDGETS = {"search": "15M@64x64", "branch": "10M@64x64", "derive": "9M", "train": "20M@64x64"}
"""The budget of each command, in place of every budget in multiply-adds."""


READ_LATEST = ("export", "train", "eval")
"""Commands that read ``runs/latest`` unless another run or file is named."""


def reason_to_parse_only(command: Command) -> str | None:
    """Why the command does not run in a test; None if it does."""
    if command.arguments is None:
        return "not a command of fbnetv5"
    if command.words[0] != "fbnetv5":
        return "several processes; tests/fbnetv5/runs/test_processes.py has two"
    text = " ".join(command.arguments)
    return next((reason for pattern, reason in ONLY_PARSED.items() if fnmatchcase(text, pattern)), None)


def smaller(command: Command) -> list[str]:
    """The arguments of the command, in small."""
    assert command.arguments is not None
    text = " ".join(command.arguments)
    arguments = [with_budget(command.arguments[0], argument) for argument in command.arguments]
    options = next((options for pattern, options in SMALLER.items() if fnmatchcase(text, pattern)), {})
    for option, value in options.items():
        arguments = with_option(arguments, option, value)
    return arguments


def with_budget(command: str, argument: str) -> str:
    """The argument with every budget in multiply-adds replaced by that of the command."""
    return re.sub(r"(?<![\w.])[\d.]+[MG](@\d+x\d+)?(?![\w.])", BUDGETS.get(command, ""), argument)


def with_option(arguments: Sequence[str], option: str, value: str) -> list[str]:
    """The arguments with an option set, in place of its value or at the end."""
    if option not in arguments:
        return [*arguments, option, value]
    at = arguments.index(option) + 1
    return [*arguments[:at], value, *arguments[at + 1 :]]


def provide(text: str, supplies: Path, folder: Path) -> None:
    """Copy into ``folder`` what a command or Python code names and the folder lacks.

    Args:
        text: the command line, or the code.
        supplies: the folder with everything that pages suppose.
        folder: the current folder.
    """
    text = re.sub(r"(-o|--output) \S+", "", text)
    for path in (*supplies.iterdir(), *supplies.glob("trained/*")):
        name = path.relative_to(supplies)
        if name != Path("trained") and re.search(rf"(?<![\w/.-]){re.escape(str(name))}(?![\w-])", text):
            copy_missing(path, folder / name)
    if "runs/latest/branched.json" in text:
        copy_missing(supplies / "tree", folder / "runs" / "latest")


def copy_missing(source: Path, target: Path) -> None:
    """Copy a file or folder, and leave what exists in the target as it is."""
    if source.is_symlink() or source.is_file():
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target, follow_symlinks=False)
        return
    for path in source.iterdir():
        copy_missing(path, target / path.name)

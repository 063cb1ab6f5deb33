"""The commands and the Python code of the pages run, in the order of each page, in small (``small.py``)."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.search.reinforce.panel import PANEL
from tests.command_line import in_process
from tests.contract.stored import fill
from tests.docs.blocks import PAGES, Block, Command, all_commands, blocks, commands
from tests.docs.small import (
    CONFIGS,
    ONLY_PARSED,
    READ_LATEST,
    provide,
    reason_to_parse_only,
    smaller,
)
from tests.fbnetv5.cli.conftest import brief_timing

ONLY_COMPILED = {
    "api.md": "a search of full size; tests/fbnetv5/test_api.py runs the functions in small",
    "export.md": "needs a GPU",
    "extending.md": "tests/test_extending.py runs it",
    "label.md": "needs a package with weights",
}
"""Pages whose Python code ``test_blocks.py`` compiles and nothing here runs, with the reason."""

STORIES = ("quickstart.md", "timm.md", "tutorial.md")
"""Pages whose blocks use what the blocks before them made. On other pages every block starts in an empty folder."""


def runs(block: Block) -> bool:
    """Whether some code of the block runs."""
    if block.language == "shell":
        return any(reason_to_parse_only(command) is None for command in commands(block))
    return block.language == "python" and block.page.name not in ONLY_COMPILED


@pytest.fixture(autouse=True)
def _brief_timing() -> Iterator[None]:
    with brief_timing():
        yield


def sections(page: Path) -> list[list[Block]]:
    """The blocks of a page that run, in groups that share a current folder."""
    running = list(filter(runs, blocks(page)))
    return [running] if page.name in STORIES else [[block] for block in running]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(sections(page))], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, supplies: Path, tmp_path: Path) -> None:
    for number, section in enumerate(sections(page)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.chdir(folder):
            run_section(section, supplies, folder)


def run_section(section: list[Block], supplies: Path, folder: Path) -> None:
    """Run the commands and the Python code of blocks in a folder, the code in one namespace."""
    for name, fields in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(fields), encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in section:
        if block.language == "shell":
            for command in commands(block):
                run_command(command, supplies, folder)
        else:
            provide(block.text, supplies, folder)
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), namespace)


def run_command(command: Command, supplies: Path, folder: Path) -> None:
    """Run a command in small, if it is not one that only parses."""
    if reason_to_parse_only(command) is not None:
        return
    arguments = smaller(command)
    latest = "runs/latest" if arguments[0] in READ_LATEST else ""
    provide(f"{' '.join(arguments)} {latest}", supplies, folder)
    done = in_process(*arguments, cwd=folder)
    assert done.returncode == 0, f"{command.where}: fbnetv5 {' '.join(arguments)}\n{done.stderr}"
    if arguments[0] in ("search", "branch", "train"):
        settle_weights(folder)


def settle_weights(folder: Path) -> None:
    """Replace the weights of all runs by noise of the right scale.

    After a few steps some channels hardly vary, which their norm amplifies beyond the limits of an export.
    """
    for path in set(folder.glob("*/*/*.safetensors")) - set(folder.glob(f"*/*/{PANEL}")):
        rng = np.random.default_rng(0)
        tensors = load_file(path)
        save_tensors(path, {name: fill(name, list(tensors[name].shape), rng) for name in sorted(tensors)})


def test_every_pattern_of_a_command_that_only_parses_is_used() -> None:
    reasons = {reason_to_parse_only(command) for command in all_commands()}
    assert set(ONLY_PARSED.values()) <= reasons


def test_budgets_become_small() -> None:
    command = Command(where="", words=("fbnetv5", "search", "--flops", "det=1.2G@320x640,400M", "--data", "a2M"))
    assert smaller(command)[2] == "det=15M@64x64,15M@64x64"
    assert re.match("a2M", smaller(command)[4])

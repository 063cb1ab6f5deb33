"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from export.errors import UserError

SIZE = "HEIGHTxWIDTH"
"""Placeholder of an image size in help texts."""
FIT = "stretch|letterbox"
"""Placeholder of a fit in help texts."""

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on stdout; messages go to stderr.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images and labels, in one of the layouts of docs/data.md.", show_default="built-in demo scenes"
    ),
]
StrictData = Annotated[
    bool,
    typer.Option(
        "--strict-data", help="Refuse a data set of which something was repaired, left out or not used on opening."
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(help="Comma-separated tasks; docs/data.md describes all tasks.", show_default="cls,det,seg"),
]
Variant = Annotated[
    str,
    typer.Option(
        help="FBNetV3 network that stage 0 of the search space is made of: a, c, f; ac, which is a with 0.65 times "
        "its channels; or a-lite, which is a with ReLU6 and without squeeze-excite, for devices on which hard swish "
        "and squeeze-excite are slow."
    ),
]
Stages = Annotated[int, typer.Option(help="Number of stages after stage 0.")]
Blocks = Annotated[int, typer.Option("--blocks-per-path", help="Number of blocks per path in each later stage.")]
SpaceName = Annotated[
    str,
    typer.Option(
        metavar="default|strict|wide",
        help="Search space: default, strict (only blocks of later stages may be skipped, and not repeated blocks of "
        "stage 0 or fusion edges) or wide (blocks also have a kernel, an expansion and squeeze-excite to choose, paths "
        "a width).",
    ),
]
Resolution = Annotated[
    str, typer.Option("--resolution", metavar=SIZE, help="Image size of the deployed network, in pixels.")
]
Luts = Annotated[Path, typer.Option(help="Folder of latency tables.")]
Runs = Annotated[Path, typer.Option(help="Folder in which the run folder is created.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
ArchitectureFile = Annotated[
    Path | None,
    typer.Option("--arch", help="Architecture file of the network.", show_default="runs/latest/TASK.json"),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="Trained network to imitate: an architecture file with weights beside it or, for classification, an "
        "exported folder, an ONNX file with its description, timm:NAME, or soft-labels for the probabilities that "
        "fbnetv5 label --soft-labels stored with the images."
    ),
]
TableDevice = Annotated[
    str | None,
    typer.Option(help="Device whose latency table in --luts predicts latency: cpu, or an NVIDIA GPU such as a100."),
]
Params = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Maximum number of parameters of the network, such as 5M: the weights of its convolutions and linear "
        "layers, head included. With other budgets, all hold together.",
    ),
]
Cost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE=BUDGET",
        help="Maximum cost of each network in the quantity of a cost file, such as energy.json=5 for the unit of the "
        "file; per task as for --flops: energy.json=det=5,3. Repeat it for other files; one file twice is a family. "
        "fbnetv5 space --cost-template "
        "writes a file to fill in.",
    ),
]
MEMORY_HELP = (
    "Maximum peak activation memory of each network, such as 8MB: the bytes of all live float32 tensors for one image, "
    "without in-place and fused operators. A limit beside other budgets"
)
Memory = Annotated[str | None, typer.Option(metavar="BUDGET", help=f"{MEMORY_HELP}.")]
ParamsFamily = Annotated[
    list[str] | None,
    typer.Option(
        "--params",
        metavar="BUDGET",
        help="Maximum number of parameters of each network, such as 5M: the weights of its convolutions and linear "
        "layers, head included; of a search also by task, as for --flops.",
    ),
]
MemoryFamily = Annotated[
    list[str] | None,
    typer.Option("--memory", metavar="BUDGET", help=f"{MEMORY_HELP}; of a search also by task, as for --flops."),
]
TableFile = Annotated[
    Path | None, typer.Option(help="Latency table file to use, also of another machine, instead of --device.")
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar=SIZE,
        help="Size that images of the search are fitted to.",
        show_default="the budget's resolution; 64x64 for the demo scenes",
    ),
]
FIT_HELP = "How images are fitted to the size: stretch, or letterbox, which keeps their aspect and pads them with grey."
Fit = Annotated[
    str | None,
    typer.Option(
        metavar=FIT, help=FIT_HELP, show_default="letterbox if det learns from a folder of --data, else stretch"
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the run folder.", show_default="date and time")]
Resume = Annotated[
    Path | None,
    typer.Option(help="Run folder of an interrupted search to continue; settings are read from the folder."),
]


def budgets_by_file(values: list[str] | None) -> dict[str, list[str]]:
    """The budgets of each file of ``--cost``.

    Raises:
        UserError: a value names no budget.
    """
    budgets: dict[str, list[str]] = {}
    for value in values or ():
        file, equals, budget = value.partition("=")
        if not (file and equals):
            raise UserError(f"--cost {value!r} must be a file and its budget, such as energy.json=5")
        budgets.setdefault(file, []).append(budget)
    return budgets

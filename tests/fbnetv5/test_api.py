"""The Python interface as a whole. The functions are tested beside their modules too, in files ``test_command.py``."""

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from fbnetv5 import api
from fbnetv5.cli.entry import app
from tests.command_line import QUICK, SMALL, document
from tests.contract.schemas import check_document
from tests.contract.stored import STORED
from tests.fbnetv5.cli.conftest import brief_timing

EXPORTED = STORED / "exported"
TINY_SEARCH = json.loads(QUICK.read_text(encoding="utf-8"))
TINY_SPACE: dict[str, Any] = {"stages": 1, "blocks_per_path": 1}


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str]) -> Any:
    """No function of the interface prints."""
    yield
    printed = capfd.readouterr()
    assert printed.out == ""


def test_every_name_has_a_home_and_a_docstring() -> None:
    (block,) = [node for node in ast.parse(inspect.getsource(api)).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {node.module: {alias.name for alias in node.names} for node in imports} == {
        module: set(names) for module, names in api._MODULES.items()
    }
    assert dir(api) == sorted(api._HOMES) == api.__all__
    for name in api.__all__:
        documentation = inspect.getdoc(getattr(api, name))
        assert documentation, name
        if inspect.isfunction(getattr(api, name)) and name != "load_architecture":
            assert "Examples:" in documentation, name
            assert name == "doctor" or "Raises:" in documentation, name
    with pytest.raises(AttributeError, match="has no attribute 'serve'"):
        api.serve  # noqa: B018


def test_importing_the_interface_loads_nothing_heavy_and_using_it_no_command_line() -> None:
    code = (
        "import sys; from fbnetv5 import api; heavy = {'torch', 'numpy', 'pydantic', 'typer', 'rich'}; "
        "assert not heavy & sys.modules.keys(); [getattr(api, name) for name in api.__all__]; "
        "assert not {'typer', 'fbnetv5.cli'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield prefix + name, command
        yield from _commands(command, f"{name}_") if hasattr(command, "commands") else ()


def test_options_of_commands_have_the_defaults_of_their_functions() -> None:
    compared = 0
    for name, command in _commands(get_command(app)):
        function = getattr(api, {"eval": "evaluate"}.get(name, name))
        parameters = dict(inspect.signature(function).parameters)
        if name.startswith("profile"):
            parameters |= inspect.signature(api.scope).parameters
        for option in command.params:
            default = parameters[option.name].default if option.name in parameters else inspect.Parameter.empty
            if default is not inspect.Parameter.empty:
                compared += 1
                own = default if getattr(option, "multiple", False) and option.default is None else option.default
                assert str(own) == str(default), f"{name} --{option.name}"
    assert compared > 150


def test_searches_in_one_process_do_not_influence_each_other_and_agree_with_the_command(tmp_path: Path) -> None:
    steps: list[int] = []
    options: dict[str, Any] = {**TINY_SPACE, "config": TINY_SEARCH, "runs": tmp_path}
    first = api.search(
        flops="15M@64x64", tasks="cls", name="a", report=lambda entry: steps.append(entry.step), **options
    )
    other = api.search(flops="20M@64x64", tasks=["seg"], seed=7, name="b", **options)
    command = ["search", "--flops", "15M@64x64", "--tasks", "cls", "--config", str(QUICK), *SMALL, "--name", "c"]
    printed = document(*command, "--runs", str(tmp_path), cwd=tmp_path)
    assert printed == first.to_json() | {"run": str(tmp_path / "c")}
    weights = [(tmp_path / name / "cls.safetensors").read_bytes() for name in ("a", "c")]
    assert weights[0] == weights[1]
    assert list(other.architectures) == ["seg"]
    assert steps[-1] == 12
    assert api.resume_search(first.run).to_json() == first.to_json()


def test_an_exported_folder_predicts_from_a_file_an_image_and_an_array_alike(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predictor = api.load(EXPORTED)
    found = [predictor(image) for image in (tmp_path / "a.png", Image.fromarray(pixels), pixels)]
    (task,) = predictor.tasks
    for prediction in found:
        assert isinstance(prediction[task], api.ClassScores)
        np.testing.assert_array_equal(prediction[task].probabilities, found[0][task].probabilities)  # type: ignore[union-attr]
    with pytest.raises(api.UserError, match=r"uint8 \[H, W, 3\] in RGB, not float32 4x4x3"):
        predictor(np.zeros((4, 4, 3), dtype=np.float32))
    with pytest.raises(api.UserError, match="nowhere"):
        api.load(tmp_path / "nowhere")


def test_an_exported_folder_is_loaded_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from fbnetv5 import api; "
        f"api.load({str(EXPORTED)!r})(np.zeros((9, 8, 3), np.uint8)); api.validate({str(EXPORTED)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_number_of_threads_of_a_predictor_is_its_own(networks: Path) -> None:
    import torch

    before = torch.get_num_threads()
    api.load(networks / "cls.json", threads=before + 1)(np.zeros((32, 32, 3), np.uint8))
    assert torch.get_num_threads() == before


def test_an_exported_folder_is_validated() -> None:
    with brief_timing():
        result = api.validate(EXPORTED)
    check_document(["validate"], result.to_json())
    assert (result.passed, result.failure) == (True, None)


def test_a_file_that_is_no_network_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"text")
    with pytest.raises(api.UserError, match=r"a\.onnx"):
        api.check(tmp_path / "a.onnx")


def test_networks_spaces_and_the_machine_are_described(tmp_path: Path) -> None:
    shown = document("show", "fbnetv3-a", cwd=tmp_path)
    assert shown == json.loads(json.dumps(api.show("fbnetv3-a").to_json()))
    space = api.space(**TINY_SPACE, resolution=64, tasks=["cls"])
    printed = document("space", *SMALL, "--resolution", "64", "--tasks", "cls", cwd=tmp_path)
    assert printed == json.loads(json.dumps(space.to_json()))
    check_document(["doctor"], json.loads(json.dumps(api.doctor().to_json())))
    with pytest.raises(api.UserError, match="unknown network 'resnet50'"):
        api.show("resnet50")

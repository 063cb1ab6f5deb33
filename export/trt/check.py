"""Checks whether TensorRT makes an engine of an ONNX file: NVIDIA's parser and builder decide; refusals have hints.

The file is read with onnx first, because the parser accepts a text file as an empty network (seen with tensorrt-rtx
1.7). ``export/trt/trial.py`` asks NVIDIA's library in a subprocess, whose crash is a refusal. The parser's warnings are
reported too, because some change what the network computes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UnavailableError, UserError
from export.files import AnyPath
from export.progress import Progress, outermost_stage, silent
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from export.trt import trial
from export.trt.hints import CRASH, Refusal, hint_for, readable
from export.trt.onnx_file import layer_name, nodes_inside, read_onnx, size_with_weights

if TYPE_CHECKING:
    import onnx

BUILD_BY_DEFAULT_MB = 500
"""Files up to this size, with their weights, are built unless ``--no-build`` is given."""
_TIMEOUT_S = 3600.0
MAX_AXIS = 2**63 - 1
"""Much longer than any build seen; the user sees its progress and may interrupt it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One refusal: of a node, or of the file as a whole."""

    stage: str
    """What refuses it: "parser", or "builder" if the parser accepts it."""
    code: str
    """The parser's ErrorCode, such as UNSUPPORTED_NODE; REFUSED from the builder; CRASHED if the library failed."""
    node: int | None
    """Position in the main graph of the node, or of the node that contains it; None for the file as a whole."""
    within: tuple[str, ...]
    """The nodes and branches that contain the node, outermost first; empty for a node of the main graph."""
    name: str
    """Name of the node."""
    operator: str
    description: str
    """NVIDIA's sentence in readable form."""
    message: str
    """NVIDIA's text as it is."""
    hint: str | None
    """What to do; None if the cause is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserWarning:
    """A warning of the parser."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of the check of one file."""

    file: str
    runtime: str
    """tensorrt or tensorrt_rtx."""
    version: str
    """Version of the runtime."""
    nodes: int
    """Number of nodes of the main graph."""
    built: bool
    """Whether an engine was built; if not, the builder has validated the network and chosen no kernels."""
    shapes: Mapping[str, Sequence[int]]
    """Shapes of dynamic inputs, and values of inputs that set sizes, for which the network was checked."""
    chosen: tuple[str, ...]
    """The inputs whose shapes were chosen, because none was named."""
    problems: tuple[Problem, ...]
    warnings: tuple[ParserWarning, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` form."""
        return {"accepted": self.accepted, **asdict(self)}


def check(
    file: AnyPath,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    build: bool | None = None,
    progress: Progress = silent,
) -> CheckResult:
    """Check any ONNX file with TensorRT's parser and builder; a refusal is a result and no error.

    Examples:
        >>> result = api.check("model.onnx", shapes={"images": [1, 3, 224, 224]})
        >>> result.accepted, [problem.hint for problem in result.problems]

    Args:
        file: the ONNX file, from any exporter.
        shapes: shape of each dynamic input, or values of each input that sets sizes.
        build: build an engine; None: if the file is small. Otherwise the builder validates the network only.
        progress: called with (stage, done, total) of the builder's outermost phase, if an engine is built.

    Raises:
        UserError: the file, or a file with its weights, is missing or damaged, or a shape does not fit.
        UnavailableError: no TensorRT is installed.
    """
    path = Path(file)
    model = read_onnx(path)
    shapes = shapes or {}
    _check_names(model, shapes)
    if build is None:
        build = size_with_weights(path, model) <= BUILD_BY_DEFAULT_MB * 1e6
    outcome, crash = _try(path, shapes, build, progress)
    parser = [_parser_problem(error, model) for error in outcome["parser_errors"]]
    builder = [_builder_problem(error, outcome, model) for error in outcome["builder_errors"]]
    problems = tuple(dict.fromkeys((*crash, *parser, *builder)))  # a cause may be reported once per input
    return CheckResult(
        file=str(path),
        runtime=outcome["name"],
        version=outcome["version"],
        nodes=len(model.graph.node),
        built=build and not problems,
        shapes=outcome["shapes"],
        chosen=tuple(outcome["chosen"]),
        problems=problems,
        warnings=tuple(_warning(message, model) for message in outcome["warnings"]),
    )


def _check_names(model: "onnx.ModelProto", shapes: Mapping[str, Sequence[int]]) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    if unknown := [name for name in shapes if name not in inputs]:
        raise UserError(f"the graph has no input {unknown[0]!r}; it has {', '.join(map(repr, inputs)) or 'none'}")
    for name, numbers in shapes.items():
        if too_large := [number for number in numbers if number > MAX_AXIS]:
            raise UserError(f"the shape of input {name!r} has {too_large[0]}, and an axis has at most {MAX_AXIS}")


def _try(
    path: Path, shapes: Mapping[str, Sequence[int]], build: bool, progress: Progress
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """The result of ``trial.run``, and the problem if NVIDIA's library crashed or hung.

    Raises:
        UnavailableError: it cannot even be loaded.
    """
    stages, outermost = set(), outermost_stage(progress)

    def report(stage: str, done: int, total: int) -> None:
        stages.add(stage)
        if build and stage != trial.PARSED:
            outermost(stage, done, total)

    try:
        arguments = (str(path), dict(shapes), build)
        return run_in_subprocess(trial.run, *arguments, timeout_s=_TIMEOUT_S, progress=report), ()
    except SubprocessFailedError as error:
        message = f"TensorRT's {{}} failed: it {error}"
    empty = dict.fromkeys(("parser_errors", "builder_errors", "warnings", "chosen"), ())
    stage = "builder" if trial.PARSED in stages else "parser"
    problem = _problem(stage, "CRASHED", Refusal(message=message.format(stage)), (), CRASH)
    try:
        identity = run_in_subprocess(trial.identify, timeout_s=_TIMEOUT_S)
    except SubprocessFailedError as error:
        raise UnavailableError(f"TensorRT is installed and cannot be loaded here: it {error}") from None
    return {**identity, **empty, "shapes": {}}, (problem,)


def _parser_problem(error: Mapping[str, Any], model: "onnx.ModelProto") -> Problem:
    index, operator, name = error["node"], error["operator"], error["name"]
    inside = nodes_inside(model, index) if index is not None else ()
    node = next((node for node in inside if (node.op_type, node.name) == (operator, name)), None)
    refusal = Refusal(message=error["message"], index=index, node=node, operator=operator, name=name)
    return _problem("parser", error["code"], refusal, tuple(error["within"]), hint_for(refusal, model))


def _builder_problem(error: Mapping[str, Any], outcome: Mapping[str, Any], model: "onnx.ModelProto") -> Problem:
    refusal = _locate(error["message"], error["names"], model)
    hint = _values_hint(outcome["unset"]) if outcome["unset"] else hint_for(refusal, model)
    if outcome["chosen"]:
        named = " ".join(f"--shape {name}={'x'.join(map(str, outcome['shapes'][name]))}" for name in outcome["chosen"])
        hint = " ".join(
            [f"{hint}." if hint else "", f"The shapes were chosen: name yours, in place of {named}"]
        ).strip()
    return _problem("builder", "REFUSED", refusal, tuple(reversed(error["names"][1:])), hint)


def _locate(message: str, names: Sequence[str], model: "onnx.ModelProto") -> Refusal:
    """The node that the parser made a layer of; ``names`` are the node's and those that contain it, outermost last."""
    outer = names[-1].rsplit(" (", 1)[0] if len(names) > 1 else "".join(names)
    indices = [index for index, node in enumerate(model.graph.node) if layer_name(node) == outer]
    if not indices:
        return Refusal(message=message)
    node = next((node for node in nodes_inside(model, indices[0]) if layer_name(node) == names[0]), None)
    node = node or model.graph.node[indices[0]]
    return Refusal(message=message, index=indices[0], node=node, operator=node.op_type, name=node.name)


def _values_hint(unset: Mapping[str, int]) -> str:
    """What to do about inputs that set sizes; ``unset`` has the number of their values."""
    options = " ".join(f"--shape {name}={'x'.join(['VALUE'] * count)}" for name, count in unset.items())
    return (
        f"the values of {', '.join(map(repr, unset))} set sizes or axes inside the network: make each of these inputs "
        f"a constant (an initialiser) of the graph, or name their values: {options}"
    )


def _problem(stage: str, code: str, refusal: Refusal, within: tuple[str, ...], hint: str | None) -> Problem:
    return Problem(
        stage=stage,
        code=code,
        node=refusal.index,
        within=within,
        name=refusal.name,
        operator=refusal.operator,
        description=readable(refusal.message, refusal.operator),
        message=refusal.message,
        hint=hint,
    )


def _warning(message: str, model: "onnx.ModelProto") -> ParserWarning:
    return ParserWarning(message=message, hint=hint_for(Refusal(message=message), model))

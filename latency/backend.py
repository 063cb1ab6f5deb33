"""The interface that times graphs on a kind of device; the files of ``latency/runtimes/`` implement it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from latency.protocol import Sampler

if TYPE_CHECKING:
    from export.runners import Array


class Backend(Protocol):
    """Runs graphs on one device at one precision."""

    @property
    def device(self) -> str:
        """The name of the device, such as "cpu"."""

    @property
    def runtime(self) -> str:
        """What executes the graphs, such as "onnxruntime"."""

    @property
    def graph_form(self) -> Literal["onnx", "torch"]:
        """The form of a graph that ``open`` takes: the content of an ONNX file, or a torch module."""

    @property
    def precision(self) -> str:
        """The precision of the graphs: fp32, fp16 or int8."""

    @property
    def threads(self) -> int:
        """CPU threads one operator may use; 1 where the device is not a CPU."""

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that must be equal for two measurements to be comparable."""

    def open(self, content: Any, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a sampler of a graph of fixed shapes on these inputs.

        Args:
            content: the graph, in the form of ``graph_form``; ONNX is of the backend's precision already.
            inputs: its inputs, by name.
            copies: number of copies of the graph, each with weights of its own, run in turn.

        Raises:
            UserError: the backend refuses the graph or the inputs.
            VerificationError: no engine can be built of the graph.
        """

    def close(self) -> None:
        """Release what the backend holds of the device, such as a locked clock; the conditions can still be read."""

    def conditions(self) -> dict[str, Any]:
        """The state of the device since the backend was made (load, clocks, heat), as JSON."""

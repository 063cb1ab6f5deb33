"""The interface that times ONNX graphs on a kind of device; ``latency/cpu.py`` and ``latency/gpu.py`` implement it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from latency.protocol import Sampler

if TYPE_CHECKING:
    from export.runners import Array


class Backend(Protocol):
    """Runs graphs on one device, each in the precision of the graph itself."""

    @property
    def device(self) -> str:
        """The name of the device, such as "cpu"."""

    @property
    def precision(self) -> str:
        """The precision of the graphs: fp32, fp16 or int8."""

    @property
    def threads(self) -> int:
        """CPU threads one operator may use; 1 where the device is not a CPU."""

    def fingerprint(self) -> dict[str, str | int]:
        """Everything that must be equal for two measurements to be comparable."""

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a sampler of a graph of fixed shapes on these inputs.

        Args:
            content: the graph.
            inputs: its inputs, by name.
            copies: number of copies of the graph, each with weights of its own, run in turn.

        Raises:
            UserError: the backend refuses the graph or the inputs.
            VerificationError: no engine can be built of the graph.
        """

    def conditions(self) -> dict[str, Any]:
        """The state of the device since the backend was made (load, clocks, heat), as JSON."""

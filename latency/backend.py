"""What times ONNX graphs on one kind of device: ``latency/processor.py`` on processors, ``latency/gpu.py`` on GPUs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from latency.protocol import Sampler

if TYPE_CHECKING:
    from export.runners import Array


class Backend(Protocol):
    """Runs graphs on one device, each in the precision that the graph itself is in."""

    @property
    def device(self) -> str:
        """Its name, such as "cpu"."""

    @property
    def precision(self) -> str:
        """Of the graphs: fp32, fp16 or int8."""

    @property
    def threads(self) -> int:
        """Processor threads one operator may use; 1 where the device is no processor."""

    def fingerprint(self) -> dict[str, str | int]:
        """What must be equal for two measurements to compare."""

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a graph of fixed shapes ready to be timed on these inputs.

        Args:
            content: the graph.
            inputs: of it, by name.
            copies: so many of it, each with weights of its own, run in turns.

        Raises:
            UserError: the graph or the inputs are refused.
            VerificationError: no engine can be built of it.
        """

    def conditions(self) -> dict[str, Any]:
        """What the device went through since the backend was made; JSON."""

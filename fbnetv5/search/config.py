"""The fields that the configurations of all searches with a supernet have in common."""

from typing import Annotated

from pydantic import Field

from fbnetv5.runs.config import MaxSkipped, NotNegative, Positive, RunConfig


class SupernetConfig(RunConfig):
    """Base of the configuration of a search that trains the weights of a supernet."""

    table: str | None = None
    """Latency table file: the costs of budgets in ms; with a budget in multiply-adds a search may predict latency."""
    other_machine_table: bool = False
    """Whether that table may have been measured on another machine."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of a step that trains weights, per process; batch norm has no statistics of one image on a 1x1 map."""
    weight_lr: Positive = 5e-3
    """Highest learning rate of the supernet's weights; half a cosine brings it down to 1 %."""
    weight_decay: NotNegative = 0.01
    """Decay of the weights of convolutions and linear layers; norms and biases do not decay."""
    clip_norm: Positive = 5.0
    """Maximum norm of the gradient of a step that trains weights; larger ones are scaled down."""
    score_images: Annotated[int, Field(ge=1)] = 1024
    """Held-out images on which the networks that were found are compared or scored at the end."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""
    max_skipped: MaxSkipped = 10
    """Number of steps that may be skipped because a loss or gradient is not finite, and of images that may be replaced
    because they cannot be read; one more ends the search."""

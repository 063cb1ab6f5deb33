"""The accuracy predictor: an encoder that is pretrained on statistics which cost nothing, and an ensemble of heads.

The encoder maps an architecture to an embedding. A proxy head predicts the statistics (multiply-adds, parameters,
milliseconds) of thousands of drawn architectures from it, so that the embedding knows size before the first training.
The accuracy head reads the embedding and the recipe (FBNetV3, arXiv 2006.02049, section 3.2). It is fitted with the
Huber loss, first on a frozen encoder, then together with it, to the normal quantiles of the trainings' ranks
(``scale.py``), where the paper fits the accuracy itself.

The paper has a single predictor. Here an ensemble, whose members differ in their random weights and in the weights of
the trainings (Bayesian bootstrap, Rubin, The Annals of Statistics 9(1), 1981), says how uncertain a prediction is.

Shape legend: N trainings, B pairs, A features of the architecture, R of the recipe, P statistics, M members.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.scale import Scale
from fbnetv5.spaces.space import Choices

EMBEDDING = 24
WIDTHS = (256, 128)
PRETRAINING_BATCH = 256
SHARE_LEARNED = 0.8
"""Share of the pool that the encoder learns from; the rest tells how well it learned (the paper's split)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSettings:
    """How the predictor learns."""

    members: int = 5
    pretraining_epochs: int = 30
    """0 leaves the encoder at its random weights."""
    frozen_epochs: int = 100
    """Passes over the trainings with a frozen encoder."""
    joint_epochs: int = 100
    """Passes over the trainings with the whole network."""
    frozen_lr: float = 1e-2
    joint_lr: float = 1e-3
    weight_decay: float = 1e-2


class Predictor(nn.Module):
    """Encoder, proxy head and accuracy head; for a fixed architecture, the accuracy head alone."""

    def __init__(self, architecture_features: int, recipe_features: int, statistics: int) -> None:
        super().__init__()
        self.architecture_features = architecture_features
        embedding = EMBEDDING if architecture_features else 0
        self.encoder = mlp(architecture_features, *WIDTHS, embedding) if architecture_features else nn.Identity()
        self.proxy = nn.Linear(embedding, statistics) if architecture_features else nn.Identity()
        self.accuracy = mlp(embedding + recipe_features, *WIDTHS, 1)

    def statistics(self, vectors: Tensor) -> Tensor:
        """[B, A + R] -> standardised statistics [B, P]."""
        predicted: Tensor = self.proxy(self.encoder(vectors[:, : self.architecture_features]))
        return predicted

    def embed(self, vectors: Tensor) -> Tensor:
        """[B, A + R] -> the input of the accuracy head: the architecture's embedding and the recipe."""
        embedding = self.encoder(vectors[:, : self.architecture_features])
        return torch.cat([embedding, vectors[:, self.architecture_features :]], dim=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, A + R] -> scores in normal quantiles [B]."""
        scores: Tensor = self.accuracy(self.embed(vectors))[:, 0]
        return scores


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for first, second in pairwise(widths):
        layers += [nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A predictor whose encoder knows the statistics."""

    network: Predictor
    unexplained: tuple[float, ...]
    """By statistic, the unexplained share of its variance on the architectures that were held out of the learning."""


def pretrain(
    pairs: PairSpace, pool: Choices, statistics: NDArray[np.float64], *, seed: int, settings: PredictorSettings
) -> Pretrained:
    """Teach the encoder the statistics [B, P] of a pool [B, S + R]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vectors = torch.from_numpy(pairs.encode(pool))
        features = pairs.architecture_features
        network = Predictor(features, vectors.shape[1] - features, statistics.shape[1])
        targets = torch.from_numpy(standardise(np.log(statistics))).float()
        learned = int(SHARE_LEARNED * len(pool))
        if not features:
            return Pretrained(network=network, unexplained=())
        _fit_statistics(network, vectors[:learned], targets[:learned], settings.pretraining_epochs)
        with torch.no_grad():
            errors = (network.statistics(vectors[learned:]) - targets[learned:]).square().mean(0)
    return Pretrained(network=network, unexplained=tuple(errors.tolist()))


def _fit_statistics(network: Predictor, vectors: Tensor, targets: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(vectors)), PRETRAINING_BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(functional.smooth_l1_loss(network.statistics(vectors[rows]), targets[rows]))
            optimizer.step()
        schedule.step()


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, ...] with mean 0 and standard deviation 1 along the first axis, or 0 where all are equal."""
    deviation = values.std(axis=0)
    standard: NDArray[np.float64] = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return standard


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Fitted predictors of the score of pairs."""

    pairs: PairSpace
    members: Sequence[Predictor]
    scale: Scale

    @torch.no_grad()
    def quantiles(self, choices: Choices) -> NDArray[np.float64]:
        """[B, S + R] -> [M, B]: the score that each member predicts, in normal quantiles."""
        vectors = torch.from_numpy(self.pairs.encode(choices))
        return torch.stack([member(vectors) for member in self.members]).double().numpy()

    def predictions(self, choices: Choices) -> NDArray[np.float64]:
        """[B, S + R] -> [M, B]: the score that each member predicts."""
        return self.scale.to_scores(self.quantiles(choices))

    def __call__(self, choices: Choices) -> NDArray[np.float64]:
        """[B, S + R] -> [B]: the score of the members' mean quantile."""
        mean: NDArray[np.float64] = self.quantiles(choices).mean(axis=0)
        return self.scale.to_scores(mean)


def fit(
    pairs: PairSpace,
    pretrained: Pretrained,
    trained: Choices,
    scores: NDArray[np.float64],
    *,
    seed: int,
    settings: PredictorSettings,
) -> Ensemble:
    """Fit an ensemble to trainings.

    Args:
        pairs: the space.
        pretrained: the predictor that every member starts as; its accuracy head is drawn anew.
        trained: the pairs [N, S + R].
        scores: of their trainings [N], higher is better.
        seed: of the members.
        settings: how they learn.
    """
    vectors = torch.from_numpy(pairs.encode(trained))
    scale = Scale.of(scores)
    targets = torch.from_numpy(scale.to_quantiles(scores)).float()
    members = []
    with torch.random.fork_rng(devices=[]):
        for number in range(settings.members):
            torch.manual_seed(seed * settings.members + number)
            members.append(_fit_member(pretrained.network, vectors, targets, settings))
    return Ensemble(pairs=pairs, members=members, scale=scale)


def _fit_member(pretrained: Predictor, vectors: Tensor, targets: Tensor, settings: PredictorSettings) -> Predictor:
    network = deepcopy(pretrained)
    for layer in network.accuracy:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    weights = torch.distributions.Exponential(1.0).sample((len(vectors),))
    weights /= weights.mean()
    with torch.no_grad():
        embedded = network.embed(vectors)

    def fit_parameters(
        parameters: Iterable[nn.Parameter], epochs: int, lr: float, predict: Callable[[], Tensor]
    ) -> None:
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=settings.weight_decay, fused=True)
        for _ in range(epochs):
            optimizer.zero_grad()
            losses = functional.huber_loss(predict(), targets, reduction="none")
            torch.autograd.backward((weights * losses).mean())
            optimizer.step()

    head = network.accuracy
    fit_parameters(head.parameters(), settings.frozen_epochs, settings.frozen_lr, lambda: head(embedded)[:, 0])
    fit_parameters(network.parameters(), settings.joint_epochs, settings.joint_lr, lambda: network(vectors))
    return network.eval()

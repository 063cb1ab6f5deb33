"""The loop of a search for a branched network: trains the weights of all copies and the routing of the tasks.

First, for a share of the steps, every task trains its own copies. Then most steps train weights under the present
routing, and one step of every few trains the routing on held-out images, with the weights fixed (BMTAS, arXiv
2008.10292, section 3). The objective of the routing is the sum of the tasks' losses, each relative to its moving
average, plus a price times the expected cost of the tree relative to the budget. The price is fixed in the paper. Here
it holds the expected cost at the budget, from above and from below: it is the derivative of an augmented Lagrangian, a
multiplier under dual ascent plus ``PENALTY`` times the present excess. The routing starts with the budget as its
expected cost. From the paper's uniform start the tasks share hardly any layer for hundreds of steps: two
tasks share a layer only if they share all before it, so the cost falls slowly, and steps are slow meanwhile.

The soft routing mixes copies by Gumbel-softmax weights (arXiv 1611.01144), whose temperature falls. The sampled routing
draws one copy per task and layer and follows REINFORCE with the mean of the other draws as baseline (arXiv 1903.12436);
a task's loss then depends on its own copies alone, so that each task has a gradient of its own.

All randomness is a function of (seed, step), so a resumed run repeats what an uninterrupted run would have done.

Shape legend: L layers, T tasks and copies, K draws, N images.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.optimization import half_cosine
from fbnetv5.search.bmtas.entry import BranchEntry
from fbnetv5.search.bmtas.prepare import Prepared
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.tree_cost import expected_cost
from fbnetv5.search.supernet_loop import SupernetLoop

PENALTY = 20.0
"""Weight of half the squared excess of the expected cost, as in ``fbnetv5 search``: dual ascent alone oscillates."""


class BranchLoop(SupernetLoop[BranchEntry, BranchedSupernet]):
    """The state of a search for a branched network and its steps."""

    title = "branch search"

    def __init__(self, prepared: Prepared, folder: Path, supernet: BranchedSupernet) -> None:
        config = prepared.config
        super().__init__(config, folder, supernet, steps=config.steps)
        self.config, self.splits, self.costs = config, prepared.splits, prepared.costs
        device = self.accelerator.device
        first = self.costs.logits_at(config.budget.limit if config.start == "budget" else np.inf)
        self.logits = torch.from_numpy(first).float().to(device).requires_grad_()
        """[L, T, T], of each copy for each task."""
        self.multiplier = 0.0 if config.cost_weight is None else config.cost_weight
        self.names[self.logits] = "logits"
        self.routing_optimizer = torch.optim.Adam(
            [self.logits], lr=config.routing_lr, weight_decay=config.routing_decay
        )
        self._layer_costs = torch.from_numpy(self.costs.layers / config.budget.limit).float().to(device)
        self._needed = torch.from_numpy(self.costs.needed).to(device)

    def phase(self, step: int) -> str:
        """What the step of that number trains."""
        after = step - self.config.warmup_steps
        if after < 0:
            return "warm-up"
        return "routing" if after % self.config.routing_every == 0 else "weights"

    def step(self) -> None:
        if self.phase(self.done) == "routing":
            self.train_routing(next(self.routing_batches))
        else:
            self.train_weights(next(self.weight_batches))

    @cached_property
    def weight_batches(self) -> Iterator[Batch]:
        """Batches for the remaining steps that train weights."""
        first = self.done - self._routing_steps(self.done)
        return self.batches(self.splits.weights, self.config.batch, first_step=first, stream=1)

    @cached_property
    def routing_batches(self) -> Iterator[Batch]:
        """Batches for the remaining steps that train the routing."""
        first = self._routing_steps(self.done)
        return self.batches(self.splits.policies, self.config.batch, first_step=first, stream=2)

    def _routing_steps(self, done: int) -> int:
        """Number of steps that trained the routing among the first ``done``."""
        return -(-max(0, done - self.config.warmup_steps) // self.config.routing_every)

    @property
    def temperature(self) -> float:
        """The temperature of the present step."""
        first, last = self.config.first_temperature, self.config.last_temperature
        return first + (last - first) * min(1.0, self.done / max(1, self.config.steps - 1))

    def train_weights(self, batch: Batch) -> None:
        """Run one pass under the present routing and update the weights on the sum of all tasks' relative losses.

        Raises:
            VerificationError: too many steps were skipped, see ``step``.
        """
        with self.accelerator.autocast():
            sums, counts = self._losses(self._pass(batch, self._generator()), batch)
        lr = self.config.weight_lr * half_cosine(self.done / self.config.steps)
        self.update_weights(sums, counts, np.ones(len(self.config.tasks)), lr=lr)

    def _pass(self, batch: Batch, generator: torch.Generator) -> Mapping[str, object]:
        """The raw outputs of all heads under a routing that is drawn for this step; no gradient of the logits."""
        images = normalise(batch.images)
        if self.phase(self.done) == "warm-up":
            layers = len(self.logits)
            return self.supernet.hard(images, [[task] * layers for task in range(len(self.config.tasks))])
        noisy = self.logits.detach() + self._gumbel(generator)
        if self.config.routing == "sampled":
            return self._hard(images, noisy.argmax(-1))
        return self.supernet.soft(images, (noisy / self.temperature).softmax(-1))

    def _hard(self, images: Tensor, copies: Tensor) -> Mapping[str, object]:
        """A hard pass; ``copies`` are [L, T]."""
        return self.supernet.hard(images, copies.T.tolist())

    def train_routing(self, batch: Batch) -> None:
        """Update the routing on held-out images, and then the multiplier of the cost.

        Raises:
            VerificationError: too many steps were skipped, see ``step``.
        """
        generator = self._generator()
        gradient = self._soft_gradient if self.config.routing == "soft" else self._sampled_gradient
        self.routing_optimizer.zero_grad()
        cost = self._expected_share()
        (of_cost,) = torch.autograd.grad(cost, self.logits)
        excess = float(cost.detach()) - 1.0
        steered = self.config.cost_weight is None
        price = self.multiplier + PENALTY * excess if steered else self.multiplier
        self.logits.grad = self.accelerator.reduce(gradient(batch, generator), "mean") + price * of_cost
        if self.guard.check_now({"the gradient of the routing": self.logits.grad.norm()}, self.done):
            return
        self.routing_optimizer.step()
        if steered:
            self.multiplier += self.config.multiplier_lr * excess

    def _expected_share(self) -> Tensor:
        """The expected cost of the whole network as a share of the budget, differentiable."""
        encoder = expected_cost(self.logits.softmax(-1), self._layer_costs, self._needed)
        return encoder + self.costs.fixed / self.config.budget.limit

    def _soft_gradient(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """[L, T, T]: the gradient of the relative losses through the mixture of copies."""
        with self.accelerator.autocast():
            weights = ((self.logits + self._gumbel(generator)) / self.temperature).softmax(-1)
            sums, counts = self._losses(self.supernet.soft(normalise(batch.images), weights), batch)
        relative = (sums / counts.clamp(min=1) / self._scale_or_one(sums)).sum()
        (gradient,) = torch.autograd.grad(relative, self.logits)
        return gradient

    @torch.no_grad()
    def _sampled_gradient(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """[L, T, T]: REINFORCE, each task with its own losses and the mean of the other draws as baseline."""
        images, probabilities = normalise(batch.images), self.logits.softmax(-1)
        drawn, losses = [], []
        for _ in range(self.config.draws):
            copies = (self.logits + self._gumbel(generator)).argmax(-1)
            with self.accelerator.autocast():
                sums, counts = self._losses(self._hard(images, copies), batch)
            drawn.append(functional.one_hot(copies, len(self.config.tasks)) - probabilities)
            losses.append(sums / counts.clamp(min=1) / self._scale_or_one(sums))
        draws, relative = len(losses), torch.stack(losses)  # [K, T]
        advantages = (relative - relative.mean(0)) * draws / (draws - 1)
        return torch.einsum("klti,kt->lti", torch.stack(drawn).to(advantages), advantages) / draws

    def _scale_or_one(self, like: Tensor) -> Tensor:
        """[T]: the moving average of each task's loss, 1 before its first loss."""
        return self.scale.values.nan_to_num(1.0).to(like)

    def _losses(self, raw: Mapping[str, object], batch: Batch) -> tuple[Tensor, Tensor]:
        """[T]: the sum of the images' losses of each task, and the number of its labelled images."""
        tasks = self.supernet.tasks
        sums = torch.stack([task.losses(raw[name], batch).sum() for name, task in tasks.items()])
        counts = torch.stack([task.labelled(batch).sum() for task in tasks.values()])
        return sums, counts.to(sums)

    def _generator(self) -> torch.Generator:
        """The source of the step's random numbers, the same in all processes."""
        seed = np.random.SeedSequence([self.config.seed, self.done]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) % 2**63)

    def _gumbel(self, generator: torch.Generator) -> Tensor:
        """[L, T, T]: standard Gumbel noise."""
        exponential = torch.empty(self.logits.shape).exponential_(generator=generator)
        return -exponential.clamp(min=1e-20).log().to(self.logits.device)

    def entry(self, *, last: bool) -> BranchEntry | None:
        """The state after ``done`` steps, every ``LOG_EVERY`` steps and after the last."""
        if self.done == 0 or not self.is_logged(last=last):
            return None
        with torch.no_grad():
            probabilities = self.logits.softmax(-1)
            entropy = float(torch.special.entr(probabilities).sum(-1).mean())
            expected = float(self._expected_share()) * self.config.budget.limit
        losses = zip(self.config.tasks, self.scale.on_host(), strict=True)
        by_task = probabilities.cpu().double().numpy().round(4).transpose(1, 0, 2).tolist()
        return BranchEntry(
            step=self.done,
            phase=self.phase(self.done - 1),
            losses={name: float(loss) for name, loss in losses if not np.isnan(loss)},
            expected_cost=expected,
            multiplier=self.multiplier,
            entropy=entropy,
            temperature=self.temperature,
            routing=dict(zip(self.config.tasks, by_task, strict=True)) if self.records_policies(last=last) else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": value for name, value in self.supernet.state_dict().items()}
        for optimizer in (self.optimizer, self.routing_optimizer):
            for name, value in optimizer_tensors(optimizer, self.names).items():
                tensors[f"optimizer/{name}"] = value
        return tensors | {"state/scale": torch.from_numpy(self.scale.on_host()), "state/logits": self.logits.detach()}

    def state(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier}

    def identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.to_json(),
            "tasks": list(self.config.tasks),
            "routing": self.config.routing,
            "costs": [self.costs.all_shared, self.costs.all_separate],
            "images": {"weights": len(self.splits.weights), "policies": len(self.splits.policies)},
        }

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.supernet, groups["weights"], self.folder / CHECKPOINT)
        saved = groups.get("optimizer", {})
        of_routing = {name: value for name, value in saved.items() if name.startswith("logits")}
        restore_optimizer(self.optimizer, self.names, {k: v for k, v in saved.items() if k not in of_routing})
        restore_optimizer(self.routing_optimizer, self.names, of_routing)
        self.scale.load(groups["state"]["scale"])
        with torch.no_grad():
            self.logits.copy_(groups["state"]["logits"])
        self.multiplier = state["multiplier"]

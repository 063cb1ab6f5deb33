"""The exact expected cost of a tree of tasks under independent routing, in closed form.

In every layer each task chooses one of the layer's copies. Two tasks share a layer if they chose the same copy in this
layer and in all layers before it; a layer runs once per group of tasks that share it (BMTAS, arXiv 2008.10292, section
3). For a set S of tasks, with w[l, t, i] the probability that task t chooses copy i of layer l,

    P(S shares layer l) = prod_{j <= l} sum_i prod_{t in S} w[j, t, i]
    E[groups of layer l] = sum over non-empty S of (-1)^(|S| - 1) P(S shares layer l)

because a group of n tasks is counted sum_k C(n, k) (-1)^(k - 1) = 1 time. This takes O(L T 2^T) operations and is
differentiable. The authors' code computes another value for three tasks or more, up to 7 % above the expectation.

Shape legend: L layers, T tasks, C copies of a layer.
"""

import torch
from torch import Tensor


def expected_groups(probabilities: Tensor, needed: Tensor) -> Tensor:
    """The expected number of groups of each layer: [L].

    Args:
        probabilities: [L, T, C], of each copy for each task; each row adds up to 1.
        needed: bool [L, T], whether the task needs the layer. A task that needs a layer needs all layers before it.
    """
    layers, tasks, copies = probabilities.shape
    products = probabilities.new_ones(layers, 1, copies)
    signs = probabilities.new_full((1,), -1.0)
    for task in range(tasks):  # set number s has task t if bit t of s is set
        products = torch.cat([products, products * probabilities[:, task, None]], dim=1)
        signs = torch.cat([signs, -signs])
    signs[0] = 0.0
    together = products.sum(-1).cumprod(0)  # [L, 2^T]
    bits = 2 ** torch.arange(tasks, device=needed.device)
    without = (~needed * bits).sum(1)  # [L], the set of tasks that do not need the layer
    possible = (torch.arange(2**tasks, device=needed.device) & without[:, None]) == 0  # [L, 2^T]
    return (together * signs * possible).sum(1)


def expected_cost(probabilities: Tensor, layer_costs: Tensor, needed: Tensor) -> Tensor:
    """The expected cost of all layers, a scalar; ``layer_costs`` [L] are of one run, other arguments as above."""
    return (expected_groups(probabilities, needed) * layer_costs).sum()

"""Muon for the matrices: momentum made orthogonal, so that every direction moves at one speed.

Matrices of one size are stepped together: at this model size launches cost more than arithmetic.
Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers". The step is scaled to the size
of an AdamW step (Liu et al. 2025, "Muon is scalable for LLM training"), so that embedding and
matrices share a rate.
"""
import collections

import torch


def orthogonalize(g):
    """Newton-Schulz iteration on a stack [n, rows, columns]: singular values move close to 1."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.bfloat16().mT if tall else g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, weight_decay, momentum=0.95):
        super().__init__(list(parameters),
                         {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            same_size = collections.defaultdict(list)
            for parameter in group["params"]:
                same_size[parameter.shape].append(parameter)
            for shape, parameters in same_size.items():
                grads = torch.stack([parameter.grad for parameter in parameters])
                state = self.state[parameters[0]]
                if not state:
                    state["momentum"] = torch.zeros_like(grads)
                state["momentum"].lerp_(grads, 1 - group["momentum"])
                ahead = grads.lerp(state["momentum"], group["momentum"])
                update = orthogonalize(ahead).float() * (0.2 * max(shape) ** 0.5 * group["lr"])
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(parameters, list(update.unbind()))

"""What places of a feature map tell a linear layer, or their nearest neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Places(NamedTuple):
    """Sampled places: features (N, C), class (N,), and how many places of its volume each stands for (N,)."""

    features: Tensor
    labels: Tensor
    weights: Tensor


def coarse_labels(label: Tensor, classes: int) -> Tensor:
    """The most frequent of ``classes`` + 1 labels in every cube of two voxels: (D, H, W) to (D/2, H/2, W/2)."""
    shares = F.avg_pool3d(F.one_hot(label, classes + 1).movedim(-1, 0).float(), 2)
    return shares.argmax(0)


def draw_places(labels: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Up to ``number`` places of every class of a label map: flat indices, and how many places each stands for."""
    flat, places, weights = labels.flatten().cpu(), [], []
    for value in flat.unique():
        among = (flat == value).nonzero()[:, 0]
        chosen = among[torch.randperm(len(among), generator=generator)[:number]]
        places.append(chosen)
        weights.append(torch.full((len(chosen),), len(among) / len(chosen)))
    return torch.cat(places), torch.cat(weights)


def linear_probe(places: Places, classes: int, steps: int = 300) -> nn.Linear:
    """A linear layer from features to ``classes`` and background, trained with cross-entropy and Dice by Adam."""
    x, truth = places.features, F.one_hot(places.labels, classes + 1).float()
    share = places.weights[:, None] / places.weights.sum()
    layer = nn.Linear(x.shape[1], classes + 1, device=x.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(steps):
        logits = layer(x)
        likely = logits.softmax(1)
        overlap = (share * likely * truth).sum(0)[1:] / (share * (likely + truth)).sum(0)[1:]
        cross_entropy = -(share * truth * logits.log_softmax(1)).sum()
        loss = cross_entropy + 1 - 2 * overlap.mean() + 1e-4 * layer.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.requires_grad_(False)


def neighbour_votes(features: Tensor, places: Places, classes: int, neighbours: int) -> Tensor:
    """Votes (N, classes + 1) of the nearest places for features (N, C), each for as many places as it stands for."""
    votes = F.one_hot(places.labels, classes + 1) * places.weights[:, None]
    found = []
    for part in features.split(8192):
        nearest = torch.cdist(part, places.features).topk(min(neighbours, len(votes)), largest=False)
        found.append(votes[nearest.indices].sum(1))
    return torch.cat(found)

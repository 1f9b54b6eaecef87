"""What an encoder makes of CT and of MRI at the same place: features, the module's gates and attention, densities."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, SpatialPadd
from torch import Tensor
from torch.nn import functional

from ..losses import DensityDivergenceLoss
from ..networks import DomainInvarianceModule, SwinFUSEEncoder
from ..transforms import ModalityIntensityd, load_on_grid

MODALITIES = ("ct", "mr")


@dataclass
class PairedCrops:
    """Sub-volumes (N, 1, D, H, W) of CT and MRI at the same places, scaled to [0, 1], and the patient of each."""

    ct: Tensor
    mr: Tensor
    patients: list[str]


def paired_crops(
    pairs: Iterable[Mapping[str, Any]],
    *,
    roi_size: Sequence[int],
    spacing: Sequence[float],
    ct_window: Sequence[float] = (-1000.0, 1000.0),
    crops: int = 2,
    seed: int = 0,
) -> PairedCrops:
    """Cut ``crops`` sub-volumes of each patient at random places inside the body mask, the same for CT and MRI.

    ``pairs`` are items with ``ct``, ``mr`` and ``mask`` on one grid and ``patient``; none is an error. ``spacing`` is
    in mm, ``ct_window`` in Hounsfield units.
    """
    keys = (*MODALITIES, "mask")
    scale = ModalityIntensityd(MODALITIES, modality=MODALITIES, ct_window=ct_window)
    prepare = Compose([*load_on_grid(MODALITIES, spacing, labels=["mask"]), scale, SpatialPadd(keys, list(roi_size))])
    rng = np.random.default_rng(seed)
    cut, patients = [], []
    for pair in pairs:
        item: Any = prepare({key: pair[key] for key in keys})
        ct, mr, mask = (torch.as_tensor(np.asarray(item[key])) for key in keys)
        inside = (mask[0] > 0).nonzero().numpy()
        last = np.subtract(mask.shape[1:], roi_size)
        for centre in inside[rng.integers(len(inside), size=crops)]:
            start = np.clip(centre - np.floor_divide(roi_size, 2), 0, last)
            place = (slice(None), *(slice(s, s + r) for s, r in zip(start, roi_size)))
            cut.append((ct[place].float(), mr[place].float()))
            patients.append(str(pair["patient"]))
    if not patients:
        raise ValueError("no pairs of CT and MRI: expected at least one")
    ct, mr = map(torch.stack, zip(*cut))
    return PairedCrops(ct, mr, patients)


def _unbiased_hsic(gram_x: Tensor, gram_y: Tensor) -> Tensor:
    n = gram_x.shape[0]
    gx, gy = (g - torch.diag(torch.diagonal(g)) for g in (gram_x, gram_y))
    product = gx.sum() * gy.sum() / ((n - 1) * (n - 2))
    cross = 2 * (gx.sum(0) * gy.sum(0)).sum() / (n - 2)
    return ((gx * gy).sum() + product - cross) / (n * (n - 3))


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment between two sets of features of the same samples.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, with the unbiased estimate of
    Song et al., "Feature Selection via Dependence Maximization", JMLR 2012: the biased one grows towards 1 when
    features are many and samples few, for independent features too. ``x`` is (N, d1), ``y`` (N, d2), N at least 4.
    It is 1 for features equal up to rotation, shift and one scale; about 0 for independent ones; NaN for constant.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ValueError(f"features have shapes {tuple(x.shape)} and {tuple(y.shape)}: expected (N, d1) and (N, d2)")
    if x.shape[0] < 4:
        raise ValueError(f"CKA of {x.shape[0]} samples: expected at least 4")
    # centring in float64 first: a common offset would otherwise swamp the differences
    x, y = (f.detach().cpu().double() - f.detach().cpu().double().mean(0) for f in (x, y))
    gram_x, gram_y = x @ x.T, y @ y.T
    xy, xx, yy = (_unbiased_hsic(a, b) for a, b in ((gram_x, gram_y), (gram_x, gram_x), (gram_y, gram_y)))
    return float(xy / torch.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")


@torch.no_grad()
def pooled_features(encoder: SwinFUSEEncoder, images: Tensor, *, use_dim: bool = True) -> list[Tensor]:
    """Mean over space of each map of ``images`` (N, 1, D, H, W): (N, C_k); ``use_dim=False`` goes around the module."""
    stages: list[list[Tensor]] = []
    for image in images:
        embedding = encoder.embed(image[None])
        embedding = encoder.fuse(embedding, embedding).fused if use_dim else embedding
        stages.append([stage.mean(dim=(2, 3, 4))[0] for stage in encoder.encode(embedding)])
    return [torch.stack(stage) for stage in zip(*stages)]


def pooled_pairs(encoder: SwinFUSEEncoder, crops: PairedCrops) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """:func:`pooled_features` of CT and of MRI, ``with DIM`` and ``without DIM``, or with ``no DIM`` to go around."""
    ways = {"no DIM": False} if encoder.domain_invariance is None else {"with DIM": True, "without DIM": False}
    return {
        way: (pooled_features(encoder, crops.ct, use_dim=dim), pooled_features(encoder, crops.mr, use_dim=dim))
        for way, dim in ways.items()
    }


def cka_by_stage(ct: Sequence[Tensor], mr: Sequence[Tensor], *, shuffles: int = 20, seed: int = 0) -> list[dict]:
    """Linear CKA between CT and MRI features (N, C_k) of the same places, per stage, as :func:`pooled_features` gives.

    ``unrelated`` is the mean CKA after shuffling the places of one side, ``unrelated_95`` its 95th percentile: what
    similarity without correspondence looks like for so many samples and features.
    """
    generator = torch.Generator().manual_seed(seed)
    records = []
    for stage, (x, y) in enumerate(zip(ct, mr, strict=True)):
        chance = [linear_cka(x, y[torch.randperm(len(y), generator=generator)]) for _ in range(shuffles)]
        record = {"stage": stage, "cka": linear_cka(x, y), "unrelated": float(np.mean(chance))}
        record |= {"unrelated_95": float(np.percentile(chance, 95)), "samples": len(x), "features": x.shape[1]}
        records.append(record)
    return records


def _standardized(ct: Tensor, mr: Tensor) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit_transform(torch.cat([ct, mr]).numpy())


def same_modality(ct: Tensor, mr: Tensor) -> np.ndarray:
    """Share of the five nearest neighbours of each place that are of its own modality: 1 if apart, 0.5 if mixed.

    Features are (N, C), the result (2 N,), those of CT first.
    """
    from sklearn.neighbors import NearestNeighbors

    features = _standardized(ct, mr)
    modality = np.repeat(MODALITIES, len(ct))
    nearest = NearestNeighbors(n_neighbors=min(5, len(features) - 1)).fit(features)
    found = nearest.kneighbors(return_distance=False)  # without itself
    return np.mean(modality[found] == modality[:, None], axis=1)


def tsne_table(ct: Tensor, mr: Tensor, patients: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Features (N, C) of the same places in two dimensions by scikit-learn's t-SNE, CT and MRI together.

    Returns patient, modality, ``x`` and ``y``, and :func:`same_modality` in the full feature space.
    """
    from sklearn.manifold import TSNE

    features = _standardized(ct, mr)
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(features)
    table = pd.DataFrame({"patient": [*patients] * 2, "modality": np.repeat(MODALITIES, len(ct))})
    return table.assign(x=points[:, 0], y=points[:, 1], same_modality=same_modality(ct, mr))


@torch.no_grad()
def density_records(encoder: SwinFUSEEncoder, crops: PairedCrops, *, points: int = 512, seed: int = 0) -> list[dict]:
    """Density divergence (Eq. 2 and 3, in nats, at most ln 2) between CT and MRI embeddings of the same places.

    Voxels of the embedding are the points. ``embedding`` is before the module, ``streams`` the two terms of Eq. 1 with
    CT as one view and MRI as the other, ``self`` the module on each alone. Both bandwidth rules.
    """
    generator = torch.Generator().manual_seed(seed)
    clouds: dict[str, list[list[Tensor]]] = {}
    for ct, mr in zip(crops.ct, crops.mr):
        p_ct, p_mr = encoder.embed(ct[None]), encoder.embed(mr[None])
        values = {"embedding": (p_ct, p_mr)}
        if encoder.domain_invariance is not None:
            both = encoder.fuse(p_ct, p_mr)
            values["streams"] = (both.stream_i, both.stream_j)
            values["self"] = (encoder.fuse(p_ct, p_ct).fused, encoder.fuse(p_mr, p_mr).fused)
        places = torch.randperm(p_ct[0, 0].numel(), generator=generator)[: math.ceil(points / len(crops.ct))]
        for kind, pair in values.items():
            clouds.setdefault(kind, []).append([tensor[0].flatten(1)[:, places].T for tensor in pair])
    records = []
    for kind, pairs in clouds.items():
        x, y = (torch.cat(side) for side in zip(*pairs))
        for rule in ("spread", "paper"):
            record = {"between": kind, "bandwidth": rule, "divergence": float(DensityDivergenceLoss(rule)(x, y))}
            records.append({**record, "bound": math.log(2), "points": len(x)})
    return records


def _module(encoder: SwinFUSEEncoder) -> DomainInvarianceModule:
    module = encoder.domain_invariance
    if not isinstance(module, DomainInvarianceModule):
        found = type(module).__name__
        raise ValueError(f"no attention to look at: expected an encoder with a domain invariance module, found {found}")
    return module


def _jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Mean over rows of the Jensen-Shannon divergence of two attention maps, in nats."""
    m = ((p + q) / 2).clamp_min(1e-12).log()
    kl = [functional.kl_div(m, t, reduction="none").sum(-1).mean() for t in (p, q)]
    return float(sum(kl) / 2)


@torch.no_grad()
def attention_records(encoder: SwinFUSEEncoder, crops: PairedCrops) -> list[dict]:
    """Whether the module's attention differs between modalities: divergence of the attention maps, layer by layer.

    ``same_place`` compares CT with MRI of one place; ``other_ct`` and ``other_mr`` two places in one modality: if
    modality matters more than content, the first is larger. It takes two crops, and an encoder with a module.
    """
    module = _module(encoder)
    if len(crops.ct) < 2:
        raise ValueError(f"attention of {len(crops.ct)} place(s): expected at least two")

    def maps(image: Tensor) -> list[Tensor]:
        embedding = encoder.embed(image[None])
        return [first for first, _ in module.attention_maps(embedding, embedding)]

    records: list[dict] = []
    before: list[tuple[Tensor, Tensor]] = []
    for place, (ct, mr) in enumerate(zip(crops.ct, crops.mr)):
        now = list(zip(maps(ct), maps(mr)))
        for layer, pair in enumerate(now):
            compared = {"same_place": pair}
            if before:
                compared |= {f"other_{m}": (p, q) for m, p, q in zip(MODALITIES, before[layer], pair)}
            for kind, two in compared.items():
                record = {"place": place, "layer": layer + 1, "between": kind}
                records.append({**record, "divergence": _jensen_shannon(*two)})
        before = now
    return records


@torch.no_grad()
def gate_volume(encoder: SwinFUSEEncoder, image: Tensor, *, overlap: float = 0.5) -> Tensor:
    """The module's gate over a volume (1, D, H, W), mean over the channels, as (D, H, W): what Eq. 1 multiplies by.

    1 leaves the embedding as it is. ValueError if the encoder has no module with gates.
    """
    module = _module(encoder)

    def gate(windows: Tensor) -> Tensor:
        embedding = encoder.embed(windows)
        magnitude = module.gates(embedding, embedding)[0].abs().mean(1, keepdim=True)
        return functional.interpolate(magnitude, size=windows.shape[2:], mode="trilinear")

    inferer = SlidingWindowInferer(encoder.roi_size, sw_batch_size=1, overlap=overlap, mode="gaussian")
    return torch.as_tensor(inferer(torch.as_tensor(image)[None], gate))[0, 0]

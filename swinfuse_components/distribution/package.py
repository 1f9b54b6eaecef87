"""One bundle, its weights and the code it needs, in one zip that runs where this library is not installed."""

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple_rep

from ..checkpoints import read_weights, sha256
from ..data.modalities import modality_of_word
from ..data.paths import read_json
from ..engines.files import atomic_save
from ..engines.run_folder import checkpoints_of
from ..finetuning.description import read_description
from .vendoring import required_packages, vendor_library

DESCRIPTION = "model.json"
CONFIGURATION = "configuration.json"
PATIENTS = "patients.json"
METADATA = "configs/metadata.json"
LARGE_FILE_BYTES = 25 * 1024 * 1024
# what a run says of network and preprocessing, by the names that train.json has for them
SETTINGS_OF_WEIGHTS = (
    *("roi_size", "feature_size", "window_size", "dim", "dim_options", "mode", "norm_name", "downsample"),
    *("spacing", "ct_window", "mr_percentiles", "mr_nonzero", "target_channels"),
    *("dense_size", "dense_weight"),  # a weight needs its head
)
_LEFT_BEHIND = shutil.ignore_patterns("models", "eval", "runs", "__pycache__", ".*", "*.pyc")
# one moment for every entry, so that the same content gives the same zip
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def build_package(
    bundle: str | Path,
    output_dir: str | Path,
    *,
    name: str | None = None,
    weights: str | Path | None = None,
    metrics: str | Path | None = None,
    overlays: Sequence[str | Path] = (),
    settings: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    vendor: bool = True,
    url_prefix: str = "",
    half: bool = False,
) -> Path:
    """Build ``output_dir/<name>/`` and ``output_dir/<name>_v<version>.zip`` from a bundle's folder; the zip's path.

    Args:
        bundle: the bundle's folder.
        output_dir: where folder and zip are written; an older package of that name is replaced.
        name: of the package, as the zoo wants it, with organ, modality and task: ``"spleen_ct_segmentation"``; the
            bundle's own name by default.
        weights: checkpoint for ``models/model.pt``, of which the network's part is kept. A ``model.json`` beside it
            goes along and gives the metadata channels, classes and region; after a pre-training, which leaves none,
            ``configuration.json`` gives the sizes. None: the package trains, but infers nothing.
        metrics: ``evaluation.json`` of the evaluation of these weights, for ``eval_metrics`` of the metadata.
        overlays: configuration files written into ``train.json`` and ``inference.json``, since MONAI Label reads one
            file alone. A key must be one of theirs, or one to which the overlay's other keys refer. ``inference.json``
            goes on reading ``model.json`` for what that says.
        settings: the same, as values: ``{"feature_size": 12}``.
        metadata: entries laid over ``metadata.json``, e.g. ``network_data_format``.
        vendor: whether to carry the library as ``scripts/``; False for a machine that has it installed.
        url_prefix: where files over 25 MB will be found; their names are appended for ``large_files.yml``.
        half: store the weights as float16; what reads them computes in float32 all the same.

    Raises:
        FileNotFoundError: no such bundle, or no such weights.
        FileExistsError: a folder of that name is no package built before, or a training has been in it.
        ValueError: an overlay's key that neither of the two configurations has or comes to use; a name of other than
            letters, digits and underscores; metrics of a model of other patients; weights beyond what float16 holds.
    """
    source = Path(bundle).resolve()
    name = source.name if name is None else name
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"name: found {name!r}, expected letters, digits and underscores, e.g. spleen_ct_segmentation")
    if not (source / METADATA).is_file():
        raise FileNotFoundError(f"{source}: found no configs/metadata.json, expected a bundle's folder")
    output = Path(output_dir).resolve()
    final = output / name
    if final.exists() and (not any(output.glob(f"{name}_v*.zip")) or checkpoints_of(final / "models")):
        found = f"{final} is there already, and no package that was built here"
        raise FileExistsError(f"{found}: choose another output_dir")
    output.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory(dir=output) as scratch:
        folder = Path(scratch) / name
        shutil.copytree(source, folder, ignore=_LEFT_BEHIND)
        _bake(folder / "configs", overlays, settings or {})
        _update_metadata(folder, metadata or {})
        if vendor:
            key, packages = "required_packages_version", required_packages(vendor_library(folder))
            _update_metadata(folder, {key: {**packages, **read_json(folder / METADATA)[key]}})
        (folder / "models").mkdir()
        if weights is not None:
            save_weights(weights, folder / "models" / "model.pt", half=half)
            _take_settings(Path(weights).parent, folder)
        if name != source.name:
            _update_metadata(folder, {"name": _display_name(name)})
        if metrics is not None:
            _update_metadata(folder, {"eval_metrics": _metrics_of(Path(metrics), folder / "models" / DESCRIPTION)})
        for path in folder.rglob("*.json"):
            _write_json(path, read_json(path))
        _list_large_files(folder, url_prefix)
        archive = zip_package(folder)

        if final.exists():
            shutil.rmtree(final)
        shutil.move(str(folder), final)
        return Path(shutil.move(str(archive), output / archive.name))


def save_weights(checkpoint: str | Path, target: str | Path, *, half: bool = False) -> None:
    """Write the network's weights alone, from any checkpoint of this project, as a plain state dict.

    The zoo's export reads no key inside it, and all other readers take both forms. FileNotFoundError if there is no
    checkpoint, CheckpointError if it holds no weights, ValueError for a value beyond what ``half`` (float16) holds.
    """
    weights = read_weights(checkpoint)
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        if large := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise ValueError(f"{checkpoint}: {large[0]} has values beyond 65504, which float16 cannot hold")
    atomic_save(weights, target)


def zip_package(folder: str | Path) -> Path:
    """Write the zip beside a package's folder anew; the same content gives the same bytes."""
    root = Path(folder).resolve()
    version = read_json(root / METADATA)["version"]
    archive = root.parent / f"{root.name}_v{version}.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(root.parent).as_posix(), _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                target.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive


def _bake(configs: Path, overlays: Sequence[str | Path], settings: dict[str, Any]) -> None:
    layers = [*map(ConfigParser.load_config_file, overlays), settings]
    unused = {key for layer in layers for key in layer}
    for path in filter(Path.is_file, (configs / "train.json", configs / "inference.json")):
        content = read_json(path)
        # what inference.json reads in the model.json of the weights, it reads there after another training too
        described = {key for key in SETTINGS_OF_WEIGHTS if str(content.get(key)).startswith("$@task[")}
        for layer in layers:
            used = _used_part(layer, content)
            unused -= set(used)
            if used := {key: value for key, value in used.items() if key not in described}:
                content = _merge(content, used)
        _write_json(path, content)
    if unused:
        raise ValueError(
            f"{', '.join(sorted(unused))}: neither train.json nor inference.json of {configs.parent.name} has it, and "
            "what the overlays change there does not refer to it"
        )


def _used_part(layer: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """What a layer changes in a configuration, and the parts of its own to which that refers.

    What refers to something that is neither there nor the layer's own is for another configuration.
    """

    def references(key: str) -> set[str]:
        return set(re.findall(r"@(\w+)", json.dumps(layer[key])))

    own = {key for key in layer if key == _top(key)}
    used = {key for key in layer if _top(key) in content and references(key) <= own | set(content)}
    referred = used
    while referred:
        referred = {key for name in referred for key in references(name) & own} - used
        used |= referred
    return {key: value for key, value in layer.items() if key in used}


def _top(key: str) -> str:
    return key.lstrip("+").replace("#", "::").split("::")[0]


def _merge(content: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / "base.json", Path(scratch) / "layer.json"]
        for path, part in zip(files, (content, layer)):
            path.write_text(json.dumps(part), encoding="utf-8")
        return ConfigParser.load_config_files([str(path) for path in files])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """In the zoo's format."""
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _update_metadata(folder: Path, changes: dict[str, Any]) -> None:
    _write_json(folder / METADATA, _merge(read_json(folder / METADATA), changes))


def _display_name(name: str) -> str:
    """``spleen_ct_segmentation``: Spleen CT segmentation."""
    words = [word.upper() if modality_of_word(word) else word for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _metrics_of(evaluation: Path, description: Path) -> dict[str, float]:
    """Means of an evaluation by the zoo's kind of name: ``{"mean_dice": 0.8, "mean_dice_spleen": 0.8}``."""
    record = read_json(evaluation)
    patients = read_json(description)["training_patients"] if description.is_file() else None
    if patients is None or sorted(record["training_patients"]) != sorted(patients):
        raise ValueError(f"{evaluation}: the evaluated model was trained on other patients than these weights")
    return {
        f"mean_{metric}" if region == "mean" else f"mean_{metric}_{region}": round(value, 4)
        for metric, regions in record["mean"].items()
        for region, value in regions.items()
        if value is not None
    }


def _take_settings(run_dir: Path, folder: Path) -> None:
    """Let the package say of network, preprocessing and data what the run that made its weights wrote beside them."""
    description, configuration = run_dir / DESCRIPTION, run_dir / CONFIGURATION
    if description.is_file():
        read_description([description])  # which refuses what is none
        shutil.copy(description, folder / "models" / DESCRIPTION)
        content = read_json(description)
        _update_data_format(folder, content)
        # inference.json reads the description itself
        _set(folder / "configs" / "train.json", {**content, **content.get("network_options", {})})
    elif configuration.is_file():
        content = read_json(configuration)
        if (run_dir / PATIENTS).is_file():  # whom nobody must test a network on that starts from these weights
            shutil.copy(run_dir / PATIENTS, folder / "models" / PATIENTS)
        for name in ("train.json", "inference.json"):
            _set(folder / "configs" / name, content)
        shape = content.get("roi_size")
        if isinstance(shape, (int, list)):
            shape, tensors = ensure_tuple_rep(shape, 3), ("inputs::image", "outputs::pred")
            _update_metadata(folder, {f"network_data_format::{tensor}::spatial_shape": shape for tensor in tensors})


def _set(path: Path, settings: dict[str, Any]) -> None:
    """Give a configuration, if there is one, the network and preprocessing of the weights."""
    if not path.is_file():
        return
    config = read_json(path)
    # an expression would say something else in another configuration, and run there
    config |= {key: settings[key] for key in SETTINGS_OF_WEIGHTS if key in config and _is_plain(settings.get(key, "$"))}
    _write_json(path, config)


def _is_plain(value: Any) -> bool:
    """Whether a value is data to MONAI's parser: numbers, names, and lists and dictionaries of them, at any depth."""
    if isinstance(value, dict):
        return "_target_" not in value and all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float) or bool(re.fullmatch(r"[\w. -]*", str(value)))


def _update_data_format(folder: Path, description: dict[str, Any]) -> None:
    metadata = read_json(folder / METADATA)
    data_format = metadata["network_data_format"]
    image, pred = data_format["inputs"]["image"], data_format["outputs"]["pred"]
    channels, modality = dict(enumerate(description["channels"])), description["modality"].upper()
    classes = dict(enumerate(description["regions"])) if description.get("sigmoid") else description["labels"]
    if code := [text for text in (modality, *channels.values(), *classes.values()) if str(text)[:1] in ("$", "@", "%")]:
        raise ValueError(f"{DESCRIPTION} has the names {code}, which would be code in metadata.json")
    for tensor, names in ((image, channels), (pred, classes)):
        tensor["num_channels"] = len(names)
        tensor["channel_def"] = {str(index): name for index, name in names.items()}
        tensor["spatial_shape"] = list(description["roi_size"])
    if not description.get("sigmoid"):
        listed = ", ".join(f"{value} {name}" for value, name in classes.items())
        metadata |= {"label_classes": listed, "pred_classes": f"one channel a class: {listed}"}
        metadata["image_classes"] = f"{len(channels)} channel(s) of {modality}: {', '.join(channels.values())}"
    image |= {"modality": modality, "format": "hounsfield" if modality == "CT" else "magnitude"}
    _write_json(folder / METADATA, metadata)


def _list_large_files(folder: Path, url_prefix: str) -> None:
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size > LARGE_FILE_BYTES:
            name = path.relative_to(folder).as_posix()
            url = f"{url_prefix.rstrip('/')}/{folder.name}/{name}" if url_prefix else ""
            entries.append({"path": name, "url": url, "hash_val": sha256(path), "hash_type": "sha256"})
    if entries:
        listing = yaml.safe_dump({"large_files": entries}, sort_keys=False)
        (folder / "large_files.yml").write_text(listing, encoding="utf-8")

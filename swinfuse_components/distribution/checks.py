"""Check a package for what the Model Zoo asks of it, before it is sent there."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from monai.bundle import ConfigParser, verify_net_in_out

from ..checkpoints import CheckpointError, load_weights, sha256
from ..data.paths import read_json
from .package import LARGE_FILE_BYTES
from .vendoring import LIBRARY, VENDORED, config_files

REQUIRED_FILES = (
    *("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/logging.conf"),
    *("docs/README.md", "docs/data_license.txt", "models/model.pt"),
)
REQUIRED_KEYS = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
    *("required_packages_version", "name", "task", "description", "authors", "copyright", "network_data_format"),
)
TENSOR_KEYS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
# the headings of the zoo's template for a bundle's page, in its order; those it calls optional are not asked for
HEADINGS = ("authors", "tags", "model description", "data", "preprocessing", "performance", "system configuration")


def check_package(folder: str | Path) -> list[str]:
    """List what keeps a package from being accepted; empty when nothing does.

    Asked for: files, keys of the metadata with exact versions, a changelog that names the version, the page's headings,
    hashes of large files, configurations that name the code carried along, and weights that fit the network.
    """
    root = Path(folder)
    problems = [f"{name}: missing" for name in REQUIRED_FILES if not (root / name).is_file()]
    if problems:
        return problems
    parts = {
        "configs/metadata.json": _check_metadata,
        "docs/README.md": _check_headings,
        "large_files.yml": _check_large_files,
        "configs": _check_names,
        "configs/inference.json": _check_weights,
    }
    for name, find in parts.items():
        try:
            problems += find(root)
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, yaml.YAMLError) as error:
            problems.append(f"{name}: not as expected ({type(error).__name__}: {error})")
    return problems


def check_network(folder: str | Path) -> None:
    """Run the network of ``inference.json`` on a tensor as the metadata promise; AssertionError on another answer."""
    root = Path(folder).resolve()
    meta_file, config_file = (str(root / "configs" / name) for name in ("metadata.json", "inference.json"))
    with _vendored_code(root):
        verify_net_in_out("network_def", meta_file=meta_file, config_file=config_file, bundle_root=str(root))


@contextmanager
def _vendored_code(root: Path) -> Iterator[None]:
    """Make the package's own ``scripts`` importable, and no other's, for as long as it is looked at."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == VENDORED]:
            del sys.modules[name]

    forget()
    sys.path.insert(0, str(root.resolve()))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a look leaves nothing behind
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(root.resolve()))
        forget()


def _check_metadata(root: Path) -> list[str]:
    metadata = read_json(root / "configs" / "metadata.json")
    problems = [f"metadata.json: {key} is missing" for key in REQUIRED_KEYS if not metadata.get(key)]
    if metadata.get("version") not in metadata.get("changelog", {}):
        problems.append(f"metadata.json: version {metadata.get('version')} is not in the changelog")
    versions = {key: metadata.get(key, "") for key in ("version", "monai_version", "pytorch_version", "numpy_version")}
    for key, version in {**versions, **metadata.get("required_packages_version", {})}.items():
        if not re.fullmatch(r"\d+(\.\d+)+", str(version)):
            problems.append(f"metadata.json: {key} is {version!r}, expected one exact version")
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        tensor = metadata.get("network_data_format", {}).get(side, {}).get(name, {})
        problems += [f"metadata.json: {side} {name} lacks {key}" for key in TENSOR_KEYS if key not in tensor]
    return problems


def _check_headings(root: Path) -> list[str]:
    lines = (root / "docs" / "README.md").read_text(encoding="utf-8").splitlines()
    headings = [re.sub(r"[#*]", "", line).strip().lower() for line in lines if line[:1] == "#"]
    return [f"docs/README.md: no heading {name!r}" for name in HEADINGS if name not in headings]


def _check_names(root: Path) -> list[str]:
    if not (root / VENDORED).is_dir():
        return []
    named = [path for path in config_files(root) if re.search(rf"\b{LIBRARY}\b", path.read_text(encoding="utf-8"))]
    return [f"{path.relative_to(root)}: names {LIBRARY}, expected {VENDORED}" for path in named]


def _check_large_files(root: Path) -> list[str]:
    listing = root / "large_files.yml"
    entries = yaml.safe_load(listing.read_text(encoding="utf-8"))["large_files"] if listing.is_file() else []
    listed = {entry["path"]: entry for entry in entries}
    without = [name for name, entry in listed.items() if not entry.get("url")]
    problems = [f"{name}: its url in large_files.yml is empty" for name in without]
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if path.stat().st_size > LARGE_FILE_BYTES and name not in listed:
            problems.append(f"{name}: over 25 MB, expected an entry in large_files.yml")
        elif name in listed and sha256(path) != listed[name]["hash_val"]:
            problems.append(f"{name}: its sha256 is not the one in large_files.yml")
    return problems + [f"{name}: in large_files.yml but missing" for name in listed if not (root / name).is_file()]


def _check_weights(root: Path) -> list[str]:
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser.read_meta(str(root / "configs" / "metadata.json"))
    parser["bundle_root"] = str(root.resolve())
    with _vendored_code(root):
        network = parser.get_parsed_content("network_def")
    try:
        load_weights(network, root / "models" / "model.pt")
    except CheckpointError as error:
        return [str(error)]
    return []

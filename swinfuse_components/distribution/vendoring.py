"""Carry the parts of this library that a bundle uses inside the bundle, as its package ``scripts``.

The Model Zoo and MONAI Label know nothing of an installed ``swinfuse_components``: a bundle that goes there brings
its code. Only the modules that the configurations name, and what those import, are copied; the copies import one
another relatively, so that they work under any name.
"""

import ast
import importlib.metadata
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

LIBRARY = "swinfuse_components"
VENDORED = "scripts"
CONFIG_SUFFIXES = (".json", ".yaml", ".yml")

_DOTTED_NAME = re.compile(rf"\b{LIBRARY}(?:\.[A-Za-z_]\w*)*")


def library_root() -> Path:
    """Folder of the library's source."""
    return Path(__file__).resolve().parents[1]


def config_files(bundle: Path) -> list[Path]:
    """Configuration files of a bundle, overlays included, in alphabetical order."""
    return sorted(path for path in (bundle / "configs").rglob("*") if path.suffix in CONFIG_SUFFIXES)


def named_modules(text: str) -> set[str]:
    """Modules of the library that a configuration's text names, e.g. ``swinfuse_components.networks.SwinFUSE``.

    Raises:
        ValueError: a name of the library that leads to no module, with that name.
    """
    modules = set()
    for name in _DOTTED_NAME.findall(text):
        module = _module_of(name)
        if module is None:
            raise ValueError(f"{name}: found no such name in {library_root()}, expected a module or a name in one")
        modules.add(module)
    return modules


def required_modules(start: set[str]) -> set[str]:
    """The given modules, the packages that hold them, and all they import of this library, in turn."""
    required: set[str] = set()
    waiting = set(start)
    while waiting:
        module = waiting.pop()
        if module in required:
            continue
        required.add(module)
        if "." in module:
            waiting.add(module.rpartition(".")[0])
        waiting |= _imported_modules(module) - required
    return required


def vendor_library(bundle: Path) -> list[str]:
    """Copy what the bundle needs into ``bundle/scripts`` and point its configurations there.

    Args:
        bundle: a copy of a bundle; its configurations are rewritten in place.

    Returns:
        The modules that were copied, by their names in this library.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in config_files(bundle)}
    modules = required_modules(set().union(*(named_modules(text) for text in texts.values())) or {LIBRARY})
    target = bundle / VENDORED
    if target.exists():
        shutil.rmtree(target)
    for module in sorted(modules):
        source = _source_of(module)
        assert source is not None
        copy = target / source.relative_to(library_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_with_relative_imports(source), encoding="utf-8")
    for path, text in texts.items():
        path.write_text(re.sub(rf"\b{LIBRARY}\b", VENDORED, text), encoding="utf-8")
    return sorted(modules)


def required_packages(modules: Iterable[str]) -> dict[str, str]:
    """Distributions that these modules of the library import, with the versions installed here.

    Left out: what Python brings, MONAI, PyTorch and NumPy, which the metadata names apart, and imports inside ``try``,
    which are optional by their form.
    """
    owners = importlib.metadata.packages_distributions()
    found = {}
    for module in modules:
        source = _source_of(module)
        assert source is not None, module
        for name in _foreign_imports(ast.parse(source.read_text(encoding="utf-8"))):
            for distribution in owners.get(name, [])[:1]:
                found[distribution] = importlib.metadata.version(distribution)
    return dict(sorted(found.items()))


def _foreign_imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Try):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
        names |= _foreign_imports(node)
    return names - set(sys.stdlib_module_names) - {LIBRARY, "monai", "torch", "numpy"}


def _source_of(module: str) -> Path | None:
    path = library_root().joinpath(*module.split(".")[1:])
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def _module_of(name: str) -> str | None:
    """The longest front part of a dotted name that is a module, if what remains is a name inside it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        source = _source_of(module)
        if source is not None:
            rest = parts[length:]
            return module if not rest or rest[0] in source.read_text(encoding="utf-8") else None
    return None


def _imported_modules(module: str) -> set[str]:
    source = _source_of(module)
    assert source is not None, module
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            if base.split(".")[0] == LIBRARY:
                candidates = [base, *(f"{base}.{alias.name}" for alias in node.names)]
                found |= {name for name in candidates if _source_of(name) is not None}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == LIBRARY}
    return found


def _with_relative_imports(source: Path) -> str:
    """The text of a module with ``from swinfuse_components.x import y`` turned into ``from ..x import y``."""
    text = source.read_text(encoding="utf-8")
    depth = len(source.relative_to(library_root()).parts)
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == LIBRARY:
                    raise ValueError(
                        f"{source}:{node.lineno}: found `import {alias.name}`, expected `from {LIBRARY}… import …`, "
                        "the form that can be made relative"
                    )
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == LIBRARY:
            old = f"from {node.module} import"
            new = f"from {'.' * depth}{(node.module or '')[len(LIBRARY) + 1 :]} import"
            lines[node.lineno - 1] = lines[node.lineno - 1].replace(old, new)
    return "".join(lines)

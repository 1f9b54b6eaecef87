"""Copy the modules of this library that a bundle uses into the bundle, as its package ``scripts``.

The Model Zoo and MONAI Label have no installed ``swinfuse_components``. Of each room (a package of the library) go the
modules that define what the configurations, or other modules that go along, name; its ``__init__`` is written anew.
"""

import ast
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

LIBRARY = "swinfuse_components"
VENDORED = "scripts"
LINE_LENGTH = 120
ROOT = Path(__file__).resolve().parents[1]


def config_files(bundle: Path) -> list[Path]:
    """Configuration files of a bundle, overlays included, in alphabetical order."""
    return sorted(path for path in (bundle / "configs").rglob("*") if path.suffix in (".json", ".yaml", ".yml"))


def vendor_library(bundle: Path) -> list[Path]:
    """Copy what the bundle needs into ``bundle/scripts`` and point its configurations there.

    The configurations of ``bundle``, a copy, are rewritten in place. Returns the modules without the ``__init__``s.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in config_files(bundle)}
    modules = required_modules("\n".join(texts.values()))
    shutil.rmtree(bundle / VENDORED, ignore_errors=True)
    for folder in {module.parent for module in modules} | {ROOT}:
        target = bundle / VENDORED / folder.relative_to(ROOT)
        target.mkdir(parents=True, exist_ok=True)
        homes = _exports(folder)
        names = {module: [name for name in homes if homes[name] == module] for module in modules}
        lines = [_import_line(module.stem, taken) for module, taken in names.items() if taken]
        (target / "__init__.py").write_text("".join(lines), encoding="utf-8")
    for module in modules:
        shutil.copy(module, bundle / VENDORED / module.relative_to(ROOT))
    for path, text in texts.items():
        path.write_text(re.sub(rf"\b{LIBRARY}\b", VENDORED, text), encoding="utf-8")
    return modules


def required_modules(text: str) -> list[Path]:
    """Modules that define a name of this text, in a room that the text names too, with all that they import in turn."""
    words = set(re.findall(r"\w+", text))
    rooms = [room for room in ROOT.iterdir() if re.search(rf"\b{LIBRARY}\.{room.name}\b", text)]
    waiting = {module for room in rooms for name, module in _exports(room).items() if name in words}
    required: set[Path] = set()
    while waiting:
        module = waiting.pop()
        required.add(module)
        waiting |= _imported(module) - required
    return sorted(required)


def required_packages(modules: Iterable[Path]) -> dict[str, str]:
    """Distributions that these modules import, with the versions installed here.

    Left out: MONAI, PyTorch and NumPy, which the metadata names apart, and optional imports, those inside ``try``.
    """
    owners = importlib.metadata.packages_distributions()
    known = {*sys.stdlib_module_names, LIBRARY, "monai", "torch", "numpy"}
    names = set().union(*(_foreign_imports(ast.parse(module.read_text(encoding="utf-8"))) for module in modules))
    # some distributions hold their modules in parts (itk: itk-core, itk-io, …): the one of the module's name brings all
    found = {name if f"{name}-io" in owners[name] else owners[name][0] for name in names - known if name in owners}
    return {distribution: importlib.metadata.version(distribution) for distribution in sorted(found)}


def _exports(folder: Path) -> dict[str, Path]:
    """The names that a room's ``__init__`` takes from its modules, and the module, of an inner room too, of each."""
    path = folder / "__init__.py"
    names: dict[str, Path] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            inner = folder / node.module
            homes = _exports(inner) if inner.is_dir() else {}
            names |= {alias.name: homes.get(alias.name, inner.with_suffix(".py")) for alias in node.names}
    return names


def _import_line(module: str, names: list[str]) -> str:
    """As black and isort write it, which check the zoo's code."""
    line = f"from .{module} import {', '.join(names)}\n"
    if len(line) <= LINE_LENGTH + 1:
        return line
    return f"from .{module} import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"


def _imported(module: Path) -> set[Path]:
    """Modules of the library that a module imports, those of a package by the names it takes."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            if base.with_suffix(".py").is_file():
                found.add(base.with_suffix(".py"))
            for alias in node.names if base.is_dir() else ():
                path = base / f"{alias.name}.py"
                found |= {path} if path.is_file() else {*filter(None, [_exports(base).get(alias.name)])}
    return found


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
    return names

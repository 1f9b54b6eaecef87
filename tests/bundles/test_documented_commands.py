"""Commands in the docs: each names a bundle's files, and keys and values that the bundle takes."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow

from .conftest import write_data, write_msd_task
from .small_runs import SMALL, command

REPOSITORY = Path(__file__).parents[2]
CHECK = "$engines.check_configuration()"
START = "$engines.start_run("  # which makes the check, and what else is done before anything is read


def _commands() -> Iterator[tuple[Path, list[str]]]:
    """Every `monai.bundle run` of every page, as words; lines that end in a backslash go on in the next."""
    pages = [path for path in REPOSITORY.rglob("*.md") if not {".venv", "node_modules"} & set(path.parts)]
    for page in sorted(pages):
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for found in re.finditer(r"^\s*(?:[A-Z_]+=\S+ )*python -m monai\.bundle run (.+)$", text, re.MULTILINE):
            yield page, shlex.split(found[1], comments=True)


COMMANDS = list(_commands())


def _where(page: Path, files: list[str]) -> list[str]:
    """The files, which a page names from the root of the repository or from that of a bundle."""
    for root in (REPOSITORY, page.parents[1], *sorted((REPOSITORY / "bundles").iterdir())):
        if all((root / name).is_file() for name in files):
            return [str(root / name) for name in files]
    raise AssertionError(f"{page} names {files}, which are not together in the repository or in a bundle")


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.relative_to(REPOSITORY)}-{n}" for n, (page, _) in enumerate(COMMANDS)]
)
def test_command_passes_the_check_of_its_bundle(page: Path, words: list[str]) -> None:
    run_id = "run" if words[0].startswith("--") else words.pop(0)
    options = {key.removeprefix("--"): DefaultParseValue(value) for key, value in zip(words[::2], words[1::2])}
    files = options.pop("config_file")
    files = _where(page, files if isinstance(files, list) else [files])
    settings = ConfigParser.load_config_files(files)
    assert run_id in settings
    assert settings["initialize"][0].startswith(START)
    ConfigWorkflow(files, **{**options, "initialize": [CHECK]}).initialize()


def test_the_pages_have_commands() -> None:
    assert len({page for page, _ in COMMANDS}) > 5


def _expressions(content: Any) -> Iterator[str]:
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from _expressions(each)
    elif isinstance(content, str) and content.startswith("$") and not content.startswith("$import"):
        yield re.sub(r"@(\w|::|#)+", "x", content[1:])


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_expressions_are_python_of_every_version(version: str) -> None:
    """Python 3.12 takes f-strings that earlier versions refuse."""
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"no Python {version} here")
    paths = [p for p in (REPOSITORY / "bundles").rglob("*") if p.suffix in (".json", ".yaml") and "configs" in p.parts]
    expressions = sorted({each for path in paths for each in _expressions(ConfigParser.load_config_file(path))})
    assert len(expressions) > 100
    code = "import json, sys; [compile(each, each, 'eval') for each in json.load(sys.stdin)]"
    given = json.dumps(expressions)
    run = subprocess.run([python, "-c", code], input=given, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


def _kinds() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Bundle, run id and files of every documented command whose files are the bundles' own, trainings first."""
    found = set()
    for page, words in COMMANDS:
        run_id = "run" if words[0].startswith("--") else words[0]
        files = DefaultParseValue(words[words.index("--config_file") + 1])
        paths = [Path(file) for file in _where(page, files if isinstance(files, list) else [files])]
        if all("bundles" in path.parts for path in paths):
            bundle = paths[0].parts[paths[0].parts.index("bundles") + 1]
            found.add((bundle, run_id, tuple(str(p).partition(f"{bundle}/configs/")[2] for p in paths)))
    return iter(sorted(found, key=lambda each: (each[1] != "training", each)))


class Workplace:
    """Small data sets, and what the trainings leave for the other commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = {name: write_data(name, root, cases=4) for name in SMALL}
        self.task = self.data["ood_eval"] = self.data["finetune_msd"]
        test = write_msd_task(root, "Task91_Test", seed=1)
        for path in test.glob("*Tr/*"):
            path.rename(path.with_name(f"new_{path.name}"))
        text = (test / "dataset.json").read_text(encoding="utf-8").replace("case_", "new_case_")
        (test / "dataset.json").write_text(text, encoding="utf-8")
        self.unseen = test

    def options(self, bundle: str, run_id: str, files: tuple[str, ...]) -> dict[str, Any]:
        """Settings that make a command small, and the places of its data, models and output."""
        run = self.root / "runs" / bundle / "fold0"
        options = {"dataset_dir": self.data[bundle], "run_dir": run, "device": "$torch.device('cpu')", "fold": 0}
        options |= {"num_workers": 0, "num_folds": 2, "overlap": 0.0}
        if run_id in ("training", "checking") or "train.json" in files:
            options |= {**SMALL[bundle], "num_workers": 0}
        if run_id == "training" and len(files) > 1:
            options["run_dir"] = self.root / "runs" / "-".join(Path(file).stem for file in files)
        if "joint.yaml" in files:
            options |= {"datasets": [str(self.task), str(self.unseen)]}
            del options["dataset_dir"]
        if "random_contrast.yaml" in files:
            options |= {"contrast_warmup": [0, 1]}
        if run_id == "inference":
            images = self.data[bundle] if bundle in ("pretrain", "finetune_brats") else self.task / "imagesTr"
            options |= {"dataset_dir": images, "output_dir": self.root / "out" / bundle}
        if "pictures.json" in files:
            del options["fold"]
        if "ensemble.yaml" in files:
            shutil.copytree(run, run.with_name("fold1"), dirs_exist_ok=True)  # a second member
            options |= {"folds": [0, 1], "run_dir": run.parent}
        if "all_cases.yaml" in files:
            options |= {"dataset_dir": self.unseen}
        if bundle == "ood_eval":
            model = self.root / "runs" / "finetune_msd" / "fold0"
            options |= {"model_dir": model, "output_dir": self.root / "out" / "ood", "on_leak": "drop"}
            options |= {"datasets": [str(self.unseen)], "evaluation": self.root / "out" / "ood"}
            options |= {"models": {"SwinFUSE": str(model)}, "pairs_dir": self.data["pretrain"]}
            options |= {"encoders": {"random": {"feature_size": 12, "roi_size": 32, "window_size": 4}}}
        if (bundle, run_id) == ("pretrain", "inference"):
            options |= {key: SMALL[bundle][key] for key in ("roi_size", "feature_size", "window_size", "spacing")}
        return options


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("documented"))


def _marked(kind: tuple[str, str, tuple[str, ...]]) -> Any:
    """Trainings with overlays are slow, those without leave the other commands their models."""
    return pytest.param(*kind, marks=pytest.mark.slow) if kind[1] == "training" and len(kind[2]) > 1 else kind


@pytest.mark.parametrize(("bundle", "run_id", "files"), [_marked(kind) for kind in _kinds()], ids=str)
def test_every_documented_command_runs(
    bundle: str, run_id: str, files: tuple[str, ...], workplace: Workplace, tmp_path: Path
) -> None:
    """On small data and few steps; commands after trainings use what these left."""
    paths = [REPOSITORY / "bundles" / bundle / "configs" / name for name in files]
    known = set(re.findall(r"@(\w+)", json.dumps([ConfigParser.load_config_file(path) for path in paths])))
    options = {k: v for k, v in workplace.options(bundle, run_id, files).items() if k in known}
    command(tmp_path / "log", run_id, *paths, **options).finish()

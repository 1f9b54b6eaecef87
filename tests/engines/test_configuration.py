import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from swinfuse_components import engines

BASE = {
    "imports": ["$import swinfuse_components.engines as engines"],
    "bundle_root": "$engines.bundle_root()",
    "run_dir": "$@bundle_root + '/models'",
    "max_epochs": 3,
    "amp": False,
    "nested": {"values": [1, "$@max_epochs"], "amp": "@amp"},
    "initialize": ["$engines.check_configuration()"],
    "guard": {
        "_target_": "swinfuse_components.engines.RunGuard",
        "run_dir": "@run_dir",
        "objects": {},
        "data_loader": None,
        "evaluator": None,
    },
    "run": ["$@guard.write_records() or @run_dir + '/configuration.json'"],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "train.json").write_text(json.dumps(BASE))
    (tmp_path / "bundle" / "configs" / "overlay.yaml").write_text("max_epochs: 5\n")
    return tmp_path / "bundle"


def workflow(bundle: Path, *names: str, **overrides: Any) -> ConfigWorkflow:
    files = [str(bundle / "configs" / name) for name in ("train.json", *names)]
    return ConfigWorkflow(config_file=files, workflow_type=None, logging_file=False, **overrides)


def test_bundle_root_is_found_from_anywhere(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = ConfigWorkflow(config_file="bundle/configs/train.json", workflow_type=None, logging_file=False)
    relative.initialize()
    assert relative.run() == [str(bundle / "models" / "configuration.json")]


def test_bundle_root_can_be_set_and_is_here_without_a_workflow(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = workflow(bundle, bundle_root="/else/where")
    chosen.initialize()
    assert chosen.parser.get_parsed_content("run_dir") == "/else/where/models"
    parser = ConfigParser(BASE)
    assert parser.get_parsed_content("bundle_root") == str(tmp_path)


def test_saved_configuration_is_the_merged_one_and_runs_by_itself(bundle: Path) -> None:
    merged = workflow(bundle, "overlay.yaml", amp=True)
    merged.initialize()
    (path,) = merged.run()
    content = json.loads(Path(path).read_text())
    assert (content["max_epochs"], content["amp"]) == (5, True)
    assert content["nested"] == BASE["nested"]  # references stay references
    again = ConfigWorkflow(
        config_file=path, workflow_type=None, logging_file=False, bundle_root=str(bundle), run_id="run"
    )
    again.initialize()
    assert again.run() == [path]


def test_saved_configuration_of_an_earlier_run_is_kept(bundle: Path) -> None:
    for epochs in (3, 3, 4):
        each = workflow(bundle, max_epochs=epochs)
        each.initialize()
        each.run()
    saved = {path.name: json.loads(path.read_text())["max_epochs"] for path in (bundle / "models").iterdir()}
    assert saved == {"configuration.json": 4, "configuration.json.previous": 3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nested::values::0": "null"}, r"nested::values::0 is the text 'null': write \$None"),
        ({"run_dir": "/x/a #1"}, "run_dir is '/x/a #1': MONAI takes '#' for a separator"),
        ({"zzz": 4}, "zzz is a key that nothing uses"),
        ({"amp": "False", "max_epoch": 4, "run_dri": "/x"}, "max_epoch .*run_dri"),
    ],
)
def test_slips_are_found_all_at_once_with_a_hint(bundle: Path, overrides: dict[str, Any], message: str) -> None:
    slipped = workflow(bundle, **overrides)
    with pytest.raises(RuntimeError) as error:
        slipped.initialize()
    with pytest.raises(ValueError, match=message):
        raise ValueError(engines.explanation(error.value))


def refused() -> None:
    try:
        engines.ResumableBatchSampler(0, 1)
    except ValueError as error:
        raise RuntimeError("Failed to evaluate something") from error


@pytest.mark.parametrize(
    ("call", "explained", "text"),
    [
        (refused, True, "error: the data list is empty: nothing to draw from"),
        (lambda: 1 / 0, False, "ZeroDivisionError"),
        (lambda: int("x"), False, "ValueError: invalid literal"),
    ],
)
def test_users_see_one_message_and_developers_the_traceback(
    call: Callable[[], object],
    explained: bool,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
    monkeypatch.delenv("SWINFUSE_TRACEBACK", raising=False)
    engines.short_errors()
    with pytest.raises(Exception) as error:
        call()
    sys.excepthook(error.type, error.value, error.tb)
    shown = capsys.readouterr().err
    assert text in shown
    assert ("Traceback" in shown) != explained


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWINFUSE_TRACEBACK", "1")
    before = sys.excepthook
    engines.short_errors()
    assert sys.excepthook is before


def test_outside_of_a_configuration_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="only be called by a configuration"):
        engines.check_configuration()

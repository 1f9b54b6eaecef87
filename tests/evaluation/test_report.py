"""The HTML report: what is in it, and that a browser opens it without a word of complaint and without a network."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from swinfuse_components.evaluation.matrix import OutOfDistributionMatrix
from swinfuse_components.evaluation.models import NetworkSource
from swinfuse_components.evaluation.pictures import choose_cases, drawn_classes, gallery, read_index
from swinfuse_components.evaluation.report import write_report
from swinfuse_components.evaluation.tables import matrix_cells, write_results
from swinfuse_components.evaluation.targets import Target
from swinfuse_components.visualization import heat_map

from .conftest import write_cases

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --enable-logging=stderr --v=0
--host-resolver-rules=MAP~*~~NOTFOUND --virtual-time-budget=20000 --dump-dom"""
LINKS = r"<(?:a|img)\s[^>]*(?:href|src)=[\"']?(?:https?:|//|[qz]\b)"


@pytest.fixture()
def evaluation(tmp_path: Path, target: Target, make_source: Callable[..., NetworkSource]) -> Path:
    folder = tmp_path / "evaluation"
    rows = OutOfDistributionMatrix([make_source("good"), make_source("half", 0.8)], [target], folder).run()
    write_results(rows, folder)
    heat_map(matrix_cells(rows), folder / "matrix.png")
    return folder


def test_gallery_of_an_evaluation(evaluation: Path) -> None:
    pictures = gallery(evaluation, "Boxes", count=2)
    assert len(pictures) == 2 and list(pictures[0].predictions) == ["good", "half"]
    assert pictures[0].dice["good"] == 1 and (pictures[0].predictions["good"] == pictures[0].truth).all()
    assert drawn_classes(read_index(evaluation), "Boxes") == {"foreground": 1}
    assert gallery(evaluation, "Boxes", cases=["case3"])[0].name == "case3"
    with pytest.raises(ValueError, match=r"no target 'Bowls' .* \['Boxes'\]"):
        gallery(evaluation, "Bowls")
    with pytest.raises(ValueError, match="no case"):
        gallery(evaluation, "Boxes", cases=["case9"])
    with pytest.raises(FileNotFoundError, match="cases.json"):
        gallery(evaluation / "elsewhere", "Boxes")


def test_mapped_classes_are_drawn_with_the_targets_values(
    tmp_path: Path, items: list[dict], make_source: Callable[..., NetworkSource]
) -> None:
    target = Target("Boxes", items, modality="mr", classes={"shell": 2, "cube": 1})
    OutOfDistributionMatrix([make_source()], [target], tmp_path / "o", class_mapping={"box": "cube"}).run()
    picture = gallery(tmp_path / "o", "Boxes", count=1)[0]
    assert drawn_classes(read_index(tmp_path / "o"), "Boxes") == {"cube": 1}
    assert (picture.predictions["Threshold"] == picture.truth).all() and picture.truth.max() == 1


def test_cases_between_worst_and_best() -> None:
    rows = pd.DataFrame({"case": [f"c{n}" for n in range(9)], "dice": [n / 10 for n in range(9)]})
    assert choose_cases(rows, 1) == ["c4"]
    assert choose_cases(rows, 2) == ["c3", "c5"] and len(choose_cases(rows, 20)) == 9


@pytest.fixture()
def report(evaluation: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "losses.csv").write_text("iteration,epoch,loss,lr\n1,1,2.0,0.1\n2,1,1.0,0.1\n", encoding="utf-8")
    output = tmp_path / "report.html"
    write_report(str(output), evaluation=str(evaluation), runs=[str(run)], title="A <title>", note="A <note>.")
    return output


def test_the_file_holds_everything_and_asks_for_nothing(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "A &lt;title&gt;" in text and "A &lt;note&gt;." in text
    assert text.count("<img alt=") == 3  # heat map, segmentations, one loss curve
    assert "<table>" in text and "good (CT boxes)" in text
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", text)
    sources = re.findall(r"<(?:script|img|link|iframe)[^>]*?(?:src|href)=[\"']([^\"']{0,30})", text)
    assert sources and all(s.startswith("data:") for s in sources)


def test_names_never_become_links_or_images(tmp_path: Path, make_source: Callable[..., NetworkSource]) -> None:
    items = write_cases(tmp_path / "[i](http:x)<img src=q>", 1)
    target = Target("![t](http://y)", items, modality="mr", classes={"<b>box</b>": 1})
    source = make_source()
    source.name = "[m](http://x)<a href=z>"
    matrix = OutOfDistributionMatrix([source], [target], tmp_path / "out")
    write_results(matrix.run(), tmp_path / "out", failures=pd.DataFrame({"case": ["<script>x</script>"]}))
    write_report(str(tmp_path / "r.html"), evaluation=str(tmp_path / "out"))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "[m](http://x)&lt;a href=z&gt;" in text and "![t](http://y)" in text
    assert not re.findall(LINKS + r"|<script>x|<b>", text)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_opens_it_without_complaint(report: Path, tmp_path: Path) -> None:
    flags = [flag.replace("~", " ") for flag in FLAGS.split()]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # the browser's hint how the viewer's library could read its canvas faster is no error
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "Canvas2D" not in line]
    assert not complaints, complaints
    assert done.stdout.count("<table>") >= 4 and "good (CT boxes)" in done.stdout
    assert done.stdout.count("<img alt=") == 3 and "<iframe" in done.stdout

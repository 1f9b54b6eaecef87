"""The HTML report of an evaluation and of the runs behind it, from the files that they left: one file by itself."""

import base64
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from ..engines.curves import draw_curves
from ..engines.files import atomic_write
from ..visualization.slices import CasePicture, side_by_side, to_ras
from .pictures import drawn_classes, gallery, read_index

logger = logging.getLogger(__name__)

# autoescape: names of models, data sets, classes and cases are text, whatever they hold
PAGE = Environment(autoescape=True).from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
body { font-family: system-ui, sans-serif; line-height: 1.45; color: #222;
  max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: 0.92rem; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; }
th { background: #f2f2f2; }
tr:nth-child(even) td { background: #fafafa; }
img { max-width: 100%; height: auto; }
iframe { border: 1px solid #ccc; width: 100%; background: black; }
figure { margin: 1rem 0; }
figcaption { color: #555; font-size: 0.9rem; }
nav a { margin-right: 1rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<nav>{% for section in sections %}<a href="#s{{ loop.index }}">{{ section.heading }}</a>{% endfor %}</nav>
{% for section in sections %}
<section id="s{{ loop.index }}">
<h2>{{ section.heading }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for table in section.tables %}
<h3>{{ table.title }}</h3>
{% if table.text %}<p>{{ table.text }}</p>{% endif %}
<table><thead><tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for line in table.lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% endfor %}
{% for figure in section.figures %}
<figure>
{% if figure.png %}<img alt="{{ figure.caption }}" src="data:image/png;base64,{{ figure.png }}">{% endif %}
{{ figure.frame }}
<figcaption>{{ figure.caption }}{% if figure.frame %}.
{% for colour, name in overlay %}
<span style="color:{{ colour }}; background:#777">&#9632;</span> {{ name }}
{% endfor %}
Click to move through the volume; left and right are marked in the views.{% endif %}</figcaption>
</figure>
{% endfor %}
</section>
{% endfor %}
</body>
</html>
""")
OVERLAY = (("#0072B2", "truth alone"), ("#D55E00", "prediction alone"), ("#F0E442", "both"))


def write_report(
    output: str = "report.html",
    *,
    evaluation: str | Sequence[str] | None = None,
    runs: str | Sequence[str] | Mapping[str, str] = (),
    pictures: str | Sequence[str] = (),
    title: str = "SwinFUSE",
    note: str = "",
    cases: int = 1,
) -> str:
    """Write one HTML file that needs no network and no other file; returns its path.

    ``evaluation`` is the ``output_dir`` of one or several evaluations: their tables, heat map, segmentations side by
    side and a viewer of so many ``cases`` of each column. ``runs`` are folders of trainings, or ``{name: folder}``:
    curves from ``losses.csv`` and ``validation.csv``. ``pictures`` are further PNG files; ``note`` stands below the
    ``title``. FileNotFoundError if an evaluation's folder holds none, ValueError if there is nothing to show.
    """
    if not (evaluation or runs or pictures):
        raise ValueError("a report needs something to show: --evaluation, --runs or --pictures")
    folders, trained, files = (
        [given] if isinstance(given, str) else given or () for given in (evaluation, runs, pictures)
    )
    named = trained if isinstance(trained, Mapping) else {Path(run).name: run for run in trained}
    sections: list[dict[str, Any]] = [{"heading": "Note", "text": note}] if note else []
    for folder in map(Path, folders):
        sections += _evaluation_sections(folder, f" ({folder.name})" if len(folders) > 1 else "", cases)
    sections.append(training_curves("Training curves", named))
    sections.append(_pictures("Pictures", {Path(file).stem.replace("_", " "): file for file in files}))
    shown = [section for section in sections if any(section.get(key) for key in section if key != "heading")]
    with atomic_write(output) as page:
        page.write(PAGE.render(title=title, sections=shown, overlay=OVERLAY))
    logger.info("report: %s", output)
    return str(output)


def _evaluation_sections(folder: Path, name: str, cases: int) -> list[dict[str, Any]]:
    """Tables, heat map, segmentations and viewer of one evaluation."""
    index, content = read_index(folder), json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    sections = [{"heading": f"Tables{name}", "text": content["text"], "tables": content["sections"]}]
    if (folder / "matrix.png").is_file():
        caption = "Mean Dice of every model on every data set"
        sections.append(_pictures(f"Heat map{name}", {caption: folder / "matrix.png"}))
    drawn, viewers = {}, []
    for number, target in enumerate(index["targets"]):
        try:
            rows = gallery(folder, target, count=cases)
        except (OSError, ValueError) as error:  # a picture less is no reason to write no report
            logger.warning("no pictures of %s: %s", target, error)
            continue
        caption = f"{target}: the slice that shows most of the target"
        file = folder / f"segmentations_{number}.png"
        drawn[caption] = side_by_side(rows, file, classes=drawn_classes(index, target))
        for case in rows:
            for model, prediction in (dict(case.predictions) or {"truth": np.zeros_like(case.truth)}).items():
                dice = f", Dice {case.dice[model]:.2f}" if model in case.dice else ""
                viewers.append({"caption": f"{case.name}, {model}{dice}", "frame": _slice_viewer(case, prediction)})
    sections.append(_pictures(f"Segmentations{name}", drawn))
    return [*sections, {"heading": f"Slice viewer{name}", "figures": viewers}]


def _pictures(heading: str, files: Mapping[str, str | Path]) -> dict[str, Any]:
    """A section of PNG files, each above its caption."""
    png = {caption: base64.b64encode(Path(file).read_bytes()).decode() for caption, file in files.items()}
    return {"heading": heading, "figures": [{"caption": caption, "png": data} for caption, data in png.items()]}


def training_curves(heading: str, runs: Mapping[str, str | Path]) -> dict[str, Any]:
    """A section with the curves of each training run, but for folders without the tables of one."""
    with tempfile.TemporaryDirectory() as temporary:
        files = {run: Path(temporary, f"{number}.png") for number, run in enumerate(runs)}
        for run, folder in runs.items():
            draw_curves(Path(folder) / "losses.csv", Path(folder) / "validation.csv", files[run])
        return _pictures(heading, {run: file for run, file in files.items() if file.is_file()})


def _slice_viewer(case: CasePicture, prediction: np.ndarray, *, width: int = 900) -> Markup:
    """HTML of nilearn's interactive viewer with image, truth and prediction (D, H, W; any foreground counts).

    ``width`` is that of the three views in pixels; the height follows from the volume.
    """
    from matplotlib.colors import ListedColormap
    from nilearn.plotting import view_img

    low, high = case.grey_limits()
    grey = np.clip((case.image.astype(np.float32) - low) / (high - low), 0, 1)
    shown = (case.truth > 0) * 1 + (prediction > 0) * 2
    centre = np.argwhere(case.truth > 0)
    voxel = centre.mean(0) if len(centre) else np.array(case.image.shape) / 2
    view = view_img(
        nib.Nifti1Image(shown.astype(np.float32), case.affine),
        bg_img=nib.Nifti1Image(grey, case.affine),
        cut_coords=[float(c) for c in nib.affines.apply_affine(case.affine, voxel)],
        threshold=0.5,
        cmap=ListedColormap([colour for colour, _ in OVERLAY]),
        symmetric_cmap=False,
        vmin=0.5,
        vmax=3.5,
        resampling_interpolation="nearest",
        black_bg=True,
        colorbar=False,
        opacity=0.55,
        width_view=width,
    )
    # sagittal, coronal and axial view stand side by side: y, x and x wide, the taller of z and y high; with some room
    turned, spacing = to_ras(grey, case.affine)
    x, y, z = (n * size for n, size in zip(turned.shape, spacing))
    return Markup(view.get_iframe(width="100%", height=round(1.3 * width * max(y, z) / (y + 2 * x)) + 60))

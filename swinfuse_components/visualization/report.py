"""One HTML file of a run or an evaluation: tables, curves, pictures and a viewer, nothing fetched from anywhere."""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from ..engines.files import atomic_write
from ..engines.logs import draw_curves
from .slices import CasePicture, to_ras

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


def pictures(heading: str, files: Mapping[str, str | Path]) -> dict[str, Any]:
    """A section of PNG files, each above its caption."""
    png = {caption: base64.b64encode(Path(file).read_bytes()).decode() for caption, file in files.items()}
    return {"heading": heading, "figures": [{"caption": caption, "png": data} for caption, data in png.items()]}


def training_curves(heading: str, runs: Mapping[str, str | Path]) -> dict[str, Any]:
    """A section with the curves of each training run, from ``losses.csv`` and ``validation.csv`` of its folder.

    Folders without these files are passed over.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = {run: Path(temporary, f"{number}.png") for number, run in enumerate(runs)}
        for run, folder in runs.items():
            draw_curves(Path(folder) / "losses.csv", Path(folder) / "validation.csv", files[run])
        return pictures(heading, {run: file for run, file in files.items() if file.is_file()})


def viewers(heading: str, cases: Sequence[CasePicture]) -> dict[str, Any]:
    """A section with an interactive viewer (nilearn's) of every case and model: truth and prediction over the image."""
    figures = []
    for case in cases:
        for model, prediction in (dict(case.predictions) or {"truth": np.zeros_like(case.truth)}).items():
            dice = f", Dice {case.dice[model]:.2f}" if model in case.dice else ""
            figures.append({"caption": f"{case.name}, {model}{dice}", "frame": slice_viewer(case, prediction)})
    return {"heading": heading, "figures": figures}


def write_page(path: str | Path, title: str, sections: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page in one step.

    Each section has a ``heading`` and any of ``text``, ``tables`` (``title``, ``text``, ``header``, ``lines``) and
    ``figures``. All of it is text, never HTML.
    """
    with atomic_write(path) as file:
        file.write(PAGE.render(title=title, sections=sections, overlay=OVERLAY))
    return Path(path)


def slice_viewer(case: CasePicture, prediction: np.ndarray, *, width: int = 900) -> Markup:
    """HTML of an interactive viewer with image, truth and prediction (D, H, W; any foreground counts).

    All data are inside it. ``width`` is that of the three views in pixels; the height follows from the volume.
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

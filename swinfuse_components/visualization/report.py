"""One HTML file of a run or an evaluation: tables, curves, pictures and a viewer, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import markdown
import nibabel as nib
import numpy as np

from ..engines.files import atomic_write
from .curves import curves, read_columns
from .segmentations import CasePicture
from .slices import to_ras

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
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
<h1>$title</h1>
<nav>$links</nav>
$body
</body>
</html>
""")

# colours of the viewer's three values: truth alone, prediction alone, both
OVERLAY = ("#0072B2", "#D55E00", "#F0E442")


@dataclass
class Report:
    """Sections collected in order, then written as one file.

    Attributes:
        title: heading of the page.
        sections: heading and HTML of each section.
    """

    title: str
    sections: list[tuple[str, str]] = field(default_factory=list)

    def add_markdown(self, heading: str, text: str) -> None:
        """A section from Markdown with tables; HTML inside it is shown as text."""
        self.sections.append((heading, markdown.markdown(html.escape(text, quote=False), extensions=["tables"])))

    def add_pictures(self, heading: str, pictures: Mapping[str, str | Path]) -> None:
        """A section of PNG files, each under its caption."""
        parts = []
        for caption, file in pictures.items():
            data = base64.b64encode(Path(file).read_bytes()).decode()
            text = html.escape(caption)
            image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
        self.sections.append((heading, "\n".join(parts)))

    def add_runs(self, heading: str, runs: Mapping[str, str | Path]) -> None:
        """Curves of training runs from ``losses.csv`` and ``validation.csv`` of their folders, one figure per quantity.

        Folders without these files are passed over.
        """
        series: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for run, folder in runs.items():
            for file in ("losses.csv", "validation.csv"):
                path = Path(folder) / file
                columns = read_columns(path) if path.is_file() else {}
                x = columns.get("iteration") or columns.get("epoch")
                if x is None:
                    continue
                chosen = {k: v for k, v in columns.items() if k not in ("iteration", "epoch", "lr") and "_of_" not in k}
                if file == "losses.csv":
                    chosen = {k: v for k, v in chosen.items() if not k.endswith("_weighted")}
                for name, y in chosen.items():
                    series.setdefault(f"{'training' if file == 'losses.csv' else 'validation'}: {name}", {})[run] = (
                        x,
                        y,
                    )
        if not series:
            return
        with tempfile.TemporaryDirectory() as folder:
            pictures = {
                name: curves(lines, Path(folder) / f"{number}.png", title=name, ylabel=name.split(": ")[1])
                for number, (name, lines) in enumerate(series.items())
            }
            self.add_pictures(heading, pictures)

    def add_viewer(self, heading: str, cases: Sequence[CasePicture]) -> None:
        """An interactive slice viewer (nilearn's) for every case and model: truth and prediction over the image."""
        parts = []
        for case in cases:
            answers = dict(case.predictions) or {"truth": np.zeros_like(case.truth)}
            for model, prediction in answers.items():
                caption = f"{case.name}, {model}" + (f", Dice {case.dice[model]:.2f}" if model in case.dice else "")
                frame = slice_viewer(case, prediction)
                legend = (
                    f'<span style="color:{OVERLAY[0]}">&#9632;</span> truth alone '
                    f'<span style="color:{OVERLAY[1]}">&#9632;</span> prediction alone '
                    f'<span style="color:{OVERLAY[2]}; background:#777">&#9632;</span> both. '
                    "Click to move through the volume; left and right are marked in the views."
                )
                parts.append(f"<figure>{frame}<figcaption>{html.escape(caption)}. {legend}</figcaption></figure>")
        self.sections.append((heading, "\n".join(parts)))

    def write(self, path: str | Path) -> Path:
        """Write the page in one step.

        Returns:
            its path.
        """
        body, links = [], []
        for number, (heading, content) in enumerate(self.sections):
            links.append(f'<a href="#s{number}">{html.escape(heading)}</a>')
            body.append(f'<section id="s{number}">\n<h2>{html.escape(heading)}</h2>\n{content}\n</section>')
        text = PAGE.substitute(title=html.escape(self.title), links=" ".join(links), body="\n".join(body))
        target = Path(path)
        with atomic_write(target) as file:
            file.write(text)
        return target


def slice_viewer(case: CasePicture, prediction: np.ndarray, *, width: int = 900) -> str:
    """HTML of an interactive viewer with image, truth and prediction, all data inside it.

    Args:
        case: image and truth (D, H, W) with their affine.
        prediction: labels (D, H, W); any foreground counts.
        width: of the three views together, in pixels; the height follows from the volume.
    """
    from matplotlib.colors import ListedColormap
    from nilearn.plotting import view_img

    low, high = case.limits or np.percentile(case.image, [1, 99.5])
    grey = np.clip((case.image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    shown = (case.truth > 0) * 1 + (prediction > 0) * 2
    centre = np.argwhere(case.truth > 0)
    voxel = centre.mean(0) if len(centre) else np.array(case.image.shape) / 2
    cut = [float(c) for c in nib.affines.apply_affine(case.affine, voxel)]
    view = view_img(
        nib.Nifti1Image(shown.astype(np.float32), case.affine),
        bg_img=nib.Nifti1Image(grey, case.affine),
        cut_coords=cut,
        threshold=0.5,
        cmap=ListedColormap(list(OVERLAY)),
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
    return view.get_iframe(width="100%", height=round(1.3 * width * max(y, z) / (y + 2 * x)) + 60)

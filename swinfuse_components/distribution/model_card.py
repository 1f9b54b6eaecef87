"""A model card for a package: its page, the recipe of its weights, and metrics with the command that gives them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..checkpoints import read_weights
from ..data.paths import read_json
from ..evaluation.folds_table import read_evaluations
from ..evaluation.tables import markdown
from .package import zip_package

# the settings of a training run that a reader needs to judge its weights, in the order of the configuration
RECIPE = (
    *("start", "init_checkpoint", "modalities", "regions", "fold", "spacing", "roi_size", "feature_size", "dim"),
    *("mode", "density_weight", "dense_weight", "learning_rate", "weight_decay", "batch_size", "max_epochs", "seed"),
)
_FRONT = "---\ntags:\n- monai\n- medical\n- self-supervised\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
_BEGIN = "## **Model Card**"


def write_model_card(
    folder: str | Path,
    *,
    run_dir: str | Path | None = None,
    metrics: str | Path | None = None,
    command: str = "",
    pages: Sequence[str | Path] = (),
    probing: str | Path | None = None,
) -> Path:
    """Complete a package's page with recipe and metrics, and write it as the card ``README.md``; returns its path.

    ``docs/README.md`` is completed too, since MONAI's ``push_to_hf_hub`` makes the card from it, and the zip beside the
    folder is written anew. Called again, it replaces what it wrote.

    Args:
        folder: a package.
        run_dir: the training run that made the weights: ``configuration.json`` holds the recipe, ``losses.csv`` the
            steps, ``validation.csv`` the validations; its curves, ``losses.png``, go into ``docs``.
        metrics: ``evaluation.json`` of the evaluation of these weights.
        command: how the metrics were computed, to be typed again.
        pages: Markdown files for the card as they are: what the weights are for, what they were trained on.
        probing: ``probing.md`` of a probe of these weights.

    Raises:
        FileNotFoundError, ValueError: no ``docs/README.md``, or a file that was named is missing or something else.
    """
    root = Path(folder)
    page = root / "docs" / "README.md"
    text = page.read_text(encoding="utf-8").split(_BEGIN)[0].rstrip()
    texts = [Path(path).read_text(encoding="utf-8").strip() for path in pages]
    sections = [_BEGIN, *texts, _weights(root), _recipe(run_dir), _curves(root, run_dir), _metrics(metrics, command)]
    if probing is not None:
        sections.append("#### **Probing**\n\n" + Path(probing).read_text(encoding="utf-8"))
    text = "\n\n".join([text, *filter(None, sections)]) + "\n"
    page.write_text(text, encoding="utf-8")
    card = root / "README.md"
    card.write_text(_FRONT + text, encoding="utf-8")
    zip_package(root)
    return card


def _weights(root: Path) -> str:
    path = root / "models" / "model.pt"
    if not path.is_file():
        return "#### **Weights**\n\nNone in this package."
    state = read_weights(path)
    millions = sum(value.numel() for value in state.values()) / 1e6
    kinds = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in state.values()}))
    return f"#### **Weights**\n\n`models/model.pt`: {len(state)} tensors, {millions:.1f} million values, {kinds}."


def _recipe(run_dir: str | Path | None) -> str:
    if run_dir is None:
        return "#### **Recipe**\n\nNot recorded: ask whoever gave you these weights."
    content = read_json(Path(run_dir) / "configuration.json")
    known = [key for key in RECIPE if not str(content.get(key, "$")).startswith("$")]  # an expression says nothing here
    lines = [f"| `{key}` | {content[key]} |" for key in known]
    return "\n".join(["#### **Recipe**", "", "| setting | value |", "|---|---|", *lines])


def _curves(root: Path, run_dir: str | Path | None) -> str:
    """What the run says of itself: its length, its curves, and every validation."""
    if run_dir is None or not (Path(run_dir) / "losses.csv").is_file():
        return ""
    run = Path(run_dir)
    text = f"#### **Training**\n\n{len(pd.read_csv(run / 'losses.csv'))} steps"
    if (run / "losses.png").is_file():
        shutil.copy(run / "losses.png", root / "docs")
        text += ", drawn in `docs/losses.png`"
    if not (run / "validation.csv").is_file():
        return f"{text}."
    table = pd.read_csv(run / "validation.csv").astype(object)
    rows = [[format(value, ".4g") for value in row] for row in table.itertuples(index=False)]
    return f"{text}. Every validation, on patients that were not trained on:\n\n{markdown(list(table), rows).rstrip()}"


def _metrics(metrics: str | Path | None, command: str) -> str:
    if metrics is None:
        return "#### **Metrics**\n\nNone: these weights were not evaluated on a task."
    (record,) = read_evaluations([metrics])
    lines = [
        (metric, region, "not defined" if value is None else format(value, ".4f"))
        for metric, regions in record["mean"].items()
        for region, value in regions.items()
    ]
    head = f"{record['task']}, {len(record['cases'])} cases, {len(record['training_patients'])} patients trained on."
    shown = f"\n\n```bash\n{command}\n```" if command else ""
    table = markdown(("metric", "region", "mean"), lines).rstrip()
    return f"#### **Metrics**\n\n{head}\n\n{table}{shown}"

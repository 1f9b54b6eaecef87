"""The paper's Table 2 holds together with the statements of its text that can be checked."""

from swinfuse_components.evaluation.reference import SOURCES, TARGETS, table2, table2_markdown


def test_statements_of_the_paper() -> None:
    cells = table2()
    assert len(cells) == len(SOURCES) * len(TARGETS) == 24
    assert cells["Liver", "Brain"][:2] == (0.22, 0.47)
    gains = {key: round(cell.swinfuse - cell.swin_unetr, 2) for key, cell in cells.items()}
    assert min(gains.values()) == 0.07
    # the text says 0.27; the table's largest gain is another, and its cell is marked
    assert max(gains.values()) == 0.29 and cells["Spleen", "Heart"].unsure_cell
    assert cells["Pancreas", "Prostate"].unsure_cell and not cells["Liver", "Brain"].unsure_row


def test_markdown_marks_the_figures_as_the_papers() -> None:
    text = table2_markdown()
    assert "0.22/0.47" in text and "not measured here" in text and "Lung (?)" in text and "0.24/0.53 ?" in text

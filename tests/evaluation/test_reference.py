"""The paper's tables hold together with the statements of its text that can be checked."""

from swinfuse_components.evaluation.paper import TABLE_1, TASKS, paper_column, paper_table2


def test_statements_about_table_2() -> None:
    cells = paper_table2().set_index(["fine_tuned_on", "tested_on"])
    assert len(cells) == 24 and tuple(cells.loc["Liver", "Brain"]) == (0.22, 0.47, False, False)
    gains = (cells["swinfuse"] - cells["swin_unetr"]).round(2)
    assert gains.min() == 0.07
    # the text says 0.27; the table's largest gain is another, and its cell is marked
    assert gains.max() == gains["Spleen", "Heart"] == 0.29
    assert cells["unsure_cell"].sum() == 3 and cells["unsure_cell"]["Spleen", "Heart"]


def test_table_1_by_the_names_of_the_decathlon() -> None:
    assert len(TASKS) == 10 and all(len(row) == 10 for row in TABLE_1.values())
    assert paper_column("Hippocampus")["SwinFUSE"] == 86.76 and paper_column("BRATS")["nnU-Net"] == 64.50
    assert paper_column("HepaticVessel")["SwinFUSE (P)"] == 71.61 and paper_column("something else") == {}

"""Names of classes in use (TG-263, FreeSurfer, TotalSegmentator, ACDC), and the axes that may be mirrored with them."""

import pytest

from swinfuse_components.finetuning import mirror_axes


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        ("Kidney_L Kidney_R", [1, 2]),
        ("lKidney rKidney", [1, 2]),
        ("LParotid RParotid", [1, 2]),
        ("Glnd_Submand_L", [1, 2]),
        ("Gland_Parotid_Lt Gland_Parotid_Rt", [1, 2]),
        ("ctx-lh-cuneus ctx-rh-cuneus", [1, 2]),
        ("Left-Amygdala Right-Amygdala", [1, 2]),
        ("myocardium LV RV", [1, 2]),
        ("optic-nerve-XL optic-nerve-XR", [1, 2]),
        ("lung_upper_lobe_left", [1]),
        ("Rene_destro Rene_sinistro", [1, 2]),
        ("KidneyL", [1, 2]),
        ("LKIDNEY RKIDNEY", [1, 2]),
        ("lh.cuneus", [1, 2]),
        ("linkes_Auge rechtes_Auge", [1, 2]),
        ("左肾 右肾", [1, 2]),
        ("HippAnt HippPost", [0, 2]),
        ("ACL PCL", [0, 2]),
        ("Musc_Constrict_S Musc_Constrict_I", [0, 1]),
        ("Larynx_Sup Larynx_Inf", [0, 1]),
        ("vertebrae_L1 vertebrae_L2", [0, 1, 2]),
        ("liver spleen rectum lung larynx", [0, 1, 2]),
        ("edema enhancing_tumour infarct", [0, 1, 2]),
    ],
)
def test_no_axis_that_tells_the_classes_apart_is_mirrored(names: str, axes: list[int]) -> None:
    labels = {"0": "background", **{str(value): name for value, name in enumerate(names.split(), 1)}}
    assert mirror_axes({"labels": labels}) == axes

"""The configuration shown in docs/data.md works as it stands."""

import re

import torch
import yaml
from monai.bundle import ConfigParser


def test_strong_views_of_the_page_about_data(repository):
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tested: strong views -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    parser = ConfigParser({"views": yaml.safe_load(block.group(1))})
    transform = parser.get_parsed_content("views").set_random_state(0)
    image = torch.rand(1, 16, 16, 16)
    contrasts = []
    for _ in range(20):
        item = transform({"image": image})
        assert torch.isfinite(item["view_i"]).all()
        assert item["target_i"].min() > -1e-4 and item["target_i"].max() < 1 + 1e-4
        upright = torch.rot90(item["target_i"], -int(item["rotation_i"]), (1, 2))
        contrasts.append(float(torch.corrcoef(torch.stack([upright.flatten(), image.flatten()]))[0, 1]))
        first, second = (torch.equal(item[f"view_{s}"], item[f"target_{s}"]) for s in "ij")
        assert not first and not second
    # some contrasts are inverted, some are not
    assert min(contrasts) < -0.3 and max(contrasts) > 0.3

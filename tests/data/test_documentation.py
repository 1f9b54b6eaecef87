"""The page about data lists every kind of finding and whether it stops a training."""

import re

from swinfuse_components.data.findings import WARNINGS, Kind


def test_every_kind_of_finding_is_documented(repository):
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (fatal|warning) \|", text, re.MULTILINE))
    assert documented == {kind.value: "warning" if kind in WARNINGS else "fatal" for kind in Kind}

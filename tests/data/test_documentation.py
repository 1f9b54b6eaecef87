"""The page about data lists every kind of finding with its severity."""

import re

from swinfuse_components.data import KINDS


def test_every_kind_of_finding_is_documented(repository):
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    documented = {}
    for names, severity in re.findall(r"^\| (`[a-z_`, ]+`) \| (fatal|warning) \|", text, re.MULTILINE):
        documented.update(dict.fromkeys(re.findall(r"`([a-z_]+)`", names), severity))
    assert documented == KINDS

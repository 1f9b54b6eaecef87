from typing import Any

import pytest

from swinfuse_components.engines.value_types import wrong_values

DEFAULTS: list[dict[str, Any]] = [
    {
        "epochs": 300,
        "rate": 0.1,
        "amp": False,
        "name": "swinfuse",
        "size": [96, 96, 96],
        "spacing": [1.5, 1.5, 1.5],
        "keys": ["image"],
        "weights": {"ct": 1},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": "@rate", "eps": None},
        "fold": None,
        "length": "$len(@loader)",
        "mixed": 1,
    },
    {"mixed": "text", "epochs": "$@other", "_meta_": {}},
]
EXAMPLES = {"fold": [0], "length": [100], "size": [96]}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", "abc", "epochs is text, 'abc': expected a whole number such as 300"),
        ("epochs", 1.5, "epochs is a number, 1.5: expected a whole number such as 300"),
        ("epochs", [300], "epochs is a list of 1 numbers, [300]: expected a whole number such as 300"),
        ("epochs", True, "epochs is True or False, True: expected a whole number such as 300"),
        ("epochs", None, "epochs is nothing, None: expected a whole number such as 300"),
        ("rate", "fast", "rate is text, 'fast': expected a number such as 0.1"),
        ("rate", "1e-3", "rate is text, '1e-3': expected a number such as 0.1; write 0.001"),
        ("rate", {"a": 1}, "rate is a dictionary, {'a': 1}: expected a number such as 0.1"),
        ("amp", 1, "amp is a whole number, 1: expected True or False such as False"),
        ("amp", "on", "amp is text, 'on': expected True or False such as False"),
        ("name", 2024, "name is a whole number, 2024: expected text such as 'swinfuse'"),
        ("size", "5x", "expected a list of 3 numbers such as [96, 96, 96] or a whole number such as 96"),
        ("size", [96, 96], "size is a list of 2 numbers, [96, 96]: expected a list of 3 numbers"),
        ("size", [96, 96, "x"], "size is a list, [96, 96, 'x']: expected a list of 3 numbers"),
        ("size", [96, 96, 9.5], "expected a list of 3 numbers such as [96, 96, 96]"),
        ("spacing", 1.5, "spacing is a number, 1.5: expected a list of 3 numbers such as [1.5, 1.5, 1.5]"),
        ("keys", "image", "keys is text, 'image': expected a list such as ['image']"),
        ("weights", 3, "weights is a whole number, 3: expected a dictionary such as {'ct': 1}"),
        ("optimizer", "adam", "optimizer is text, 'adam': expected a dictionary"),
        ("optimizer", {"_target_": "torch.optim.AdamW", "lr": "x"}, "optimizer::lr is text, 'x': expected a number"),
        ("optimizer", {"_target_": "torch.optim.AdamW", "lr": None}, "optimizer::lr is nothing, None"),
        ("fold", "a", "fold is text, 'a': expected a whole number such as 0"),
        ("length", 0.5, "length is a number, 0.5: expected a whole number such as 100"),
        ("mixed", [], "mixed is a list, []: expected a whole number such as 1 or text such as 'text'"),
    ],
)  # fmt: skip
def test_wrong_kinds_are_named_with_what_was_found_and_expected(key: str, value: Any, message: str) -> None:
    ((named, found),) = wrong_values({**DEFAULTS[0], key: value}, DEFAULTS, EXAMPLES)
    assert named.split("::")[0] == key
    assert message in found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "$2 * 3"),
        ("epochs", "@length"),
        ("epochs", "%other.json::epochs"),
        ("rate", 1),
        ("amp", True),
        ("size", (64, 32, 32)),
        ("size", 64),
        ("size", ["$64", "@epochs", 32]),
        ("spacing", [1, 2, 3]),
        ("keys", []),
        ("keys", ["ct", "mr"]),
        ("weights", {}),
        ("weights", {"ct": "a lot"}),
        ("optimizer", {"_target_": "torch.optim.SGD", "lr": "@rate"}),
        ("optimizer", {"_target_": "torch.optim.AdamW", "lr": 1, "eps": 1e-8, "betas": [0.9, 0.99]}),
        ("fold", None),
        ("fold", 3),
        ("length", 5),
        ("mixed", "other"),
        ("unknown", object()),
    ],
)
def test_right_kinds_pass(key: str, value: Any) -> None:
    assert list(wrong_values({**DEFAULTS[0], key: value}, DEFAULTS, EXAMPLES)) == []

"""What a check found in each item, in a file, so that a check that was interrupted goes on where it was."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .caching import item_key


class CheckRecord:
    """Findings by item: one line of JSON for each item, appended when it is finished.

    An item whose entries or files have changed, or that was checked by other ``rules`` (settings of the check), counts
    as new. Without a ``path`` nothing is kept.
    """

    def __init__(self, path: str | os.PathLike | None, rules: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.rules = json.dumps(rules, default=str, sort_keys=True)
        self.found: dict[str, list] = {}
        self._lock = threading.Lock()
        if self.path is not None and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    key, findings = json.loads(line)
                    self.found[key] = [[str(text) for text in finding] for finding in findings]
                except (ValueError, TypeError):  # the line at which a run was killed
                    continue

    def find(self, item: object) -> list[list[str]] | None:
        """Findings (kind, file, message) of an item, or None for one that has not been checked."""
        return self.found.get(self._key(item)) if self.path is not None else None

    def add(self, item: object, findings: Sequence[tuple[str, str, str]]) -> None:
        """Keep the findings of an item."""
        if self.path is None:
            return
        line = json.dumps([self._key(item), findings])
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n" + line)  # the line before may have been cut by a kill

    def _key(self, item: object) -> str:
        return item_key(item if isinstance(item, Mapping) else {"item": repr(item)}, self.rules).decode()

"""Deliveries that the agent refused for good, kept for people, each beside its reason."""

from pathlib import Path
from typing import Final

import msgspec

from monitoring.capture.backlog import Slice

DEAD_LETTER_FOLDER: Final = "dead-letter"


class DeadLetters:
    """Folder for refused deliveries, bounded in bytes; past the bound only the count remains."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    def keep(self, producer: str, content: Slice, payload: bytes, reason: str) -> Path | None:
        """Store payload and reason side by side; None when there is no room for them."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        used = sum(path.stat().st_size for path in self.folder.iterdir())
        if used + len(payload) > self._max_bytes:
            return None
        path = self.folder / f"{producer}-{content.first}-{content.last}.delivery"
        about = {"producer": producer, "first": content.first, "last": content.last}
        path.with_suffix(".json").write_bytes(msgspec.json.encode({**about, "reason": reason}))
        path.write_bytes(payload)
        return path

"""Which disk a ``state_dir`` lies on: an id of its own, in ``<state_dir>/disk-id``.

Ray names a node anew at each start. Whoever reads the same id sees the same journals.
"""

import logging
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE_NAME: Final = "disk-id"

log = logging.getLogger(__name__)


def disk_id(state_dir: Path) -> str:
    """Read the id, or make one; empty where neither can be done now, which says nothing."""
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x") as file:
            file.write(uuid.uuid4().hex)
        return path.read_text()
    except OSError as error:
        log.warning("which disk %s is on cannot be told: %s", state_dir, error)
        return ""

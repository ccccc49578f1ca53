"""The key that pseudonyms are made with."""

import os
import secrets
import tempfile
from pathlib import Path


def masking_key(env_name: str, state_dir: str) -> bytes:
    """Take the key from the environment, else from ``<state_dir>/masking.key``, made when missing.

    All replicas of a node that start at once end up with the same key: the file is written whole
    and then linked into place, which only the first can do.
    """
    given = os.environ.get(env_name)
    if given:
        return given.encode()
    path = Path(state_dir) / "masking.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            os.write(descriptor, secrets.token_hex(32).encode())
            os.fsync(descriptor)
            os.link(made, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            os.close(descriptor)
            Path(made).unlink()
    return path.read_bytes()

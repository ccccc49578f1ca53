"""The key that pseudonyms are made with."""

import os
import secrets
import tempfile
from pathlib import Path

from monitoring.capture.masking import MIN_KEY_BYTES
from monitoring.errors import MaskingPolicyInvalid


def masking_key(env_name: str, state_dir: str) -> bytes:
    """Take the key from the environment, else from ``<state_dir>/masking.key``, made when missing.

    Called once, where the application is built; replicas get the key from there. The file is
    written whole and then linked into place, which only the first of several builders can do. On a
    cluster of several nodes set the variable: a build on another node would make another key.
    """
    given = os.environ.get(env_name)
    if given:
        if len(given.encode()) < MIN_KEY_BYTES:
            raise MaskingPolicyInvalid(
                f"environment variable {env_name}: {len(given.encode())} bytes; "
                f"a masking key needs at least {MIN_KEY_BYTES}"
            )
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

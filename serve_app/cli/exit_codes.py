"""What every command's exit code says."""

from typing import Final

GOOD: Final = 0
FINDING: Final = 1
MISUSE: Final = 2

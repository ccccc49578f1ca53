"""For processes that start beside serving: no second of CPU for what they never use."""

import sys
from importlib.abc import MetaPathFinder


class _Absent(MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=fullname)


def without_pandas() -> None:
    """Let this process do without pandas, which pyarrow imports at its first array if it can.

    Where it has been imported already, nothing changes.
    """
    sys.meta_path.insert(0, _Absent())

"""A bundle's folder on any fsspec storage: local disk, S3, Google Cloud Storage."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import fsspec
from fsspec.utils import get_protocol

from serve_app.errors import BundleError, BundleExists, BundleNotFound, BundleStorageFailed
from serve_app.model.manifest import check_name


class BundleFolder:
    """``<root>/<name>/<version>/``: whole files in, whole files out.

    ``storage_options`` go to fsspec under its own names (``endpoint_url``, ``key``, ``secret`` for
    S3); what they leave out is taken from the usual environment (``AWS_ENDPOINT_URL``,
    ``AWS_ACCESS_KEY_ID``, ...). Failures are BundleNotFound, BundleExists or BundleStorageFailed.
    """

    def __init__(
        self,
        root: str | Path,
        name: str,
        version: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = check_name("name", name)
        self.version = check_name("version", version)
        self.url = f"{str(root).rstrip('/')}/{self.name}/{self.version}"
        with _translated(self.url):
            self._fs, self._path = fsspec.core.url_to_fs(
                self.url, **_filesystem_options(self.url, storage_options or {})
            )

    @classmethod
    def at(
        cls, path: str | Path, *, storage_options: Mapping[str, Any] | None = None
    ) -> "BundleFolder":
        """Take the folder itself; its last two parts are the name and the version.

        >>> BundleFolder.at("s3://models/credit/1.0.0/", storage_options={"anon": True}).name
        'credit'
        """
        url = str(path)
        if get_protocol(url) == "file" and "://" not in url:
            url = str(Path(url).resolve())  # so that "." and a link "latest" have a name
        root, _, version = url.rstrip("/").rpartition("/")
        root, _, name = root.rpartition("/")
        return cls(root, name, version, storage_options=storage_options)

    def files(self) -> set[str]:
        """Names of what lies in the folder, subfolders included; empty when there is none."""
        with _translated(self.url):
            try:
                entries = self._fs.ls(self._path, detail=False)
            except FileNotFoundError:
                return set()
            # An S3 "folder" may be listed as an object with its own name.
            names = {str(entry).rstrip("/").rpartition("/")[2] for entry in entries}
            return names - {self._path.rpartition("/")[2]}

    def read(self, file: str) -> bytes:
        with _translated(f"{self.url}/{file}"):
            data: bytes = self._fs.cat_file(f"{self._path}/{file}")
            return data

    def write(self, file: str, data: bytes, *, mode: Literal["create", "overwrite"]) -> None:
        """Store a whole file; ``create`` refuses with BundleExists when other bytes are there."""
        with _translated(f"{self.url}/{file}"):
            try:
                self._fs.pipe_file(f"{self._path}/{file}", data, mode=mode)
            except OSError as exc:
                # s3fs reports a failed If-None-Match as FileExistsError or as EINVAL, by server.
                refused = isinstance(exc, FileExistsError) or exc.errno == errno.EINVAL
                if mode != "create" or not refused or file not in self.files():
                    raise
                # A lost answer makes s3fs try again and meet the very object it has just stored.
                if self.read(file) != data:
                    raise FileExistsError(file) from exc

    def remove(self, file: str) -> None:
        with _translated(f"{self.url}/{file}"):
            self._fs.rm_file(f"{self._path}/{file}")


def _filesystem_options(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Add what bundles need to the caller's options, which win."""
    # A cached listing or a cached instance would show a folder as it was, not as it is.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    match get_protocol(url):
        case "file" | "local":
            options = {"auto_mkdir": True}
        case "s3" | "s3a":
            # Servers other than AWS often refuse the checksums that botocore adds by default.
            options["config_kwargs"] = {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        case _:
            pass
    return options | dict(given)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except FileNotFoundError as exc:
        raise BundleNotFound(f"{url}: not found") from exc
    except FileExistsError as exc:
        raise BundleExists(f"{url}: exists already") from exc
    except Exception as exc:
        # s3fs and gcsfs let through whatever their transports raise (botocore, aiohttp, google).
        raise BundleStorageFailed(f"{url}: {type(exc).__name__}: {exc}") from exc

"""Hold a bundle's files against its manifest. Nothing here unpickles anything."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serve_app.errors import BundleInvalid, BundleNotFound, BundleTampered
from serve_app.model.baseline import decode_baseline
from serve_app.model.manifest import BASELINE_FILE, MANIFEST_FILE, Manifest, decode_manifest
from serve_app.model.storage import BundleFolder

ProblemKind = Literal[
    "missing", "hash_mismatch", "unlisted", "manifest_invalid", "baseline_invalid"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One way in which a stored bundle breaks the contract."""

    kind: ProblemKind
    file: str
    detail: str
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFiles:
    """A manifest and the very bytes that were hashed against it, by file name."""

    manifest: Manifest
    contents: Mapping[str, bytes]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: BundleFolder) -> Manifest:
    """Read the manifest; BundleInvalid when it is not the manifest of this folder."""
    try:
        manifest = decode_manifest(folder.read(MANIFEST_FILE))
    except BundleNotFound as exc:
        raise BundleNotFound(f"no bundle at {folder.url}: it has no {MANIFEST_FILE}") from exc
    if (manifest.name, manifest.version) != (folder.name, folder.version):
        raise BundleInvalid(
            f"{folder.url}/{MANIFEST_FILE} is that of {manifest.name} {manifest.version}; "
            f"the folder says {folder.name} {folder.version}"
        )
    return manifest


def read_verified(folder: BundleFolder) -> VerifiedFiles:
    """Read every listed file once, and return those bytes after all their hashes have held.

    Reading once leaves no moment in which a file could change between its check and its use.
    Raises BundleNotFound, BundleInvalid for the manifest, BundleTampered for the first file whose
    hash differs.
    """
    manifest = read_manifest(folder)
    contents = {file: folder.read(file) for file in manifest.sha256}
    for file, expected in manifest.sha256.items():
        found = sha256_of(contents[file])
        if found != expected:
            raise BundleTampered(file=f"{folder.url}/{file}", expected=expected, found=found)
    return VerifiedFiles(manifest=manifest, contents=contents)


def verify_bundle(
    path: str | Path, *, storage_options: Mapping[str, Any] | None = None
) -> list[Problem]:
    """List all that is wrong with the bundle in this folder; an empty list means sound.

    Safe on a bundle from anywhere: the model is hashed, never unpickled. BundleNotFound when the
    folder holds nothing at all.
    """
    folder = BundleFolder.at(path, storage_options=storage_options)
    present = folder.files()
    if not present:
        raise BundleNotFound(f"no bundle at {folder.url}: nothing lies there")
    try:
        manifest = read_manifest(folder)
    except BundleNotFound as exc:
        return [Problem(kind="missing", file=MANIFEST_FILE, detail=str(exc))]
    except BundleInvalid as exc:
        return [Problem(kind="manifest_invalid", file=MANIFEST_FILE, detail=str(exc))]
    problems = [
        problem
        for file, expected in manifest.sha256.items()
        for problem in _check_file(folder, file, expected, manifest)
    ]
    # Dot files are left behind by desktops and copying tools, and nothing ever reads them.
    unlisted = {file for file in present - set(manifest.sha256) if not file.startswith(".")}
    return problems + [
        Problem(kind="unlisted", file=file, detail=f"{file} is not in the manifest")
        for file in sorted(unlisted - {MANIFEST_FILE})
    ]


def _check_file(
    folder: BundleFolder, file: str, expected: str, manifest: Manifest
) -> list[Problem]:
    try:
        data = folder.read(file)
    except BundleNotFound:
        return [Problem(kind="missing", file=file, detail=f"{file} is listed but not there")]
    found = sha256_of(data)
    if found != expected:
        detail = f"{file}: sha256 is {found}, the manifest says {expected}"
        return [
            Problem(kind="hash_mismatch", file=file, detail=detail, expected=expected, found=found)
        ]
    if file == BASELINE_FILE:
        try:
            decode_baseline(data, manifest.features, manifest.task)
        except BundleInvalid as exc:
            return [Problem(kind="baseline_invalid", file=file, detail=str(exc))]
    return []

"""Errors of the serving side.

TreelineError
├── BundleError
│   ├── BundleNotFound          no manifest.json where a bundle was looked for
│   ├── BundleExists            this version is stored already, and versions are immutable
│   ├── BundleStorageFailed     the storage behind a root refused or did not answer
│   ├── BundleTampered          a file's bytes are not those the manifest was written for
│   └── BundleInvalid           a stored bundle breaks the contract
│       ├── BundleNameInvalid   a name or version is not one safe folder name
│       └── BundleUnbuildable   model or data handed in cannot become a bundle
└── DemoDataMissing             the distribution that carries the credit data is not installed
"""


class TreelineError(Exception):
    """Root of everything this package raises."""


class BundleError(TreelineError):
    """Something is wrong with a bundle or with the place it lies in."""


class BundleNotFound(BundleError):
    """There is no manifest.json, so there is no bundle: the manifest is written last."""


class BundleExists(BundleError):
    """The version is stored already; a version never changes unless it is forced to."""


class BundleStorageFailed(BundleError):
    """Storage refused or did not answer: credentials, network, permissions."""


class BundleTampered(BundleError):
    """A file's bytes differ from those the manifest was written for; nothing was unpickled."""

    def __init__(self, *, file: str, expected: str, found: str) -> None:
        super().__init__(
            f"{file}: sha256 is {found}, the manifest says {expected}; the bundle is not loaded"
        )
        self.file = file
        self.expected = expected
        self.found = found


class BundleInvalid(BundleError, ValueError):
    """Manifest, baseline or model break the contract of docs/bundles.md."""


class BundleNameInvalid(BundleInvalid):
    """A name or version asked for is not one safe folder name; nothing was looked up."""


class BundleUnbuildable(BundleInvalid):
    """The model or the data handed in cannot become a bundle: estimator, columns or labels."""


class DemoDataMissing(TreelineError):
    """The distribution that carries the German credit data is not installed."""

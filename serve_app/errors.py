"""Errors of the serving side.

TreelineError
├── BundleError
│   ├── BundleNotFound          no manifest.json where a bundle was looked for
│   ├── BundleExists            this version is stored already, and versions are immutable
│   ├── BundleStorageFailed     the storage behind a root refused or did not answer
│   ├── BundleUnfit             a further version cannot answer the champion's requests
│   ├── BundleTampered          a file's bytes are not those the manifest was written for
│   └── BundleInvalid           a stored bundle breaks the contract
│       ├── BundleNameInvalid   a name or version is not one safe folder name
│       └── BundleUnbuildable   model or data handed in cannot become a bundle
├── DemoDataMissing             the distribution that carries the credit data is not installed
├── ServeConfigInvalid          no Serve config, or a setting in it is wrong (serve_config.py)
├── NotOnLoopbackError          a gRPC server would listen on all interfaces (grpc/binding.py)
├── DeployFailed                a config was not deployed (cli/deploy.py)
├── AgentsUnavailableError      a monitoring agent did not answer (agents.py)
└── of a request (schema.py, admission.py, prediction.py)
    ├── RequestMalformedError   the body is no JSON
    ├── RequestInvalidError     it does not fit the model, or the model refuses it
    ├── RequestTooLargeError    more rows than one request may hold
    ├── OverloadedError         too much is waiting
    └── PredictionFailedError   the model failed on valid input
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


class BundleUnfit(BundleError):
    """A version is to answer requests whose features, or whose answers, are not its own."""


class BundleTampered(BundleError):
    """A file's bytes differ from those the manifest was written for; nothing was unpickled."""

    def __init__(self, file: str, expected: str, found: str) -> None:
        # Arguments as they came, so that the error survives pickling on its way through Ray.
        super().__init__(file, expected, found)
        self.file = file
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"{self.file}: sha256 is {self.found}, the manifest says {self.expected}; "
            "the bundle is not loaded"
        )


class BundleInvalid(BundleError, ValueError):
    """Manifest, baseline or model break the contract of docs/bundles.md."""


class BundleNameInvalid(BundleInvalid):
    """A name or version asked for is not one safe folder name; nothing was looked up."""


class BundleUnbuildable(BundleInvalid):
    """The model or the data handed in cannot become a bundle: estimator, columns or labels."""


class DemoDataMissing(TreelineError):
    """The distribution that carries the German credit data is not installed."""

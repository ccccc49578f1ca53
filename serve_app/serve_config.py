"""A Serve config file: read it, find our parts in it, and check them before anything starts.

Ray Serve takes any config and fails later, in the logs of its controller.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from autoscaling.errors import ConfigError
from autoscaling.serve_policy import config_of
from monitoring.errors import MonitoringError
from serve_app.errors import TreelineError
from serve_app.model.variants import columns_for
from serve_app.model.verify import read_manifest
from serve_app.section import complaint
from serve_app.settings import Settings, UserConfig
from serve_app.traffic_settings import TrafficUnfit
from serve_app.wiring import bundle_folder, masking_policy

IMPORT_PATH: Final = "serve_app.app:build"
DEPLOYMENT: Final = "ModelServer"
LATENCY_POLICY: Final = "autoscaling.serve_policy:LatencyPolicy"
ANY_KEY: Final = bytes(16)  # what a masking policy allows does not depend on its key


class ServeConfigInvalid(TreelineError):
    """The file is missing, is no Serve config, or one of its settings is not allowed."""


def read_config(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as exc:
        raise ServeConfigInvalid(f"{path}: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise ServeConfigInvalid(f"{path}: not YAML: {exc}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("applications"), list):
        raise ServeConfigInvalid(f"{path}: not a Serve config: it has no list `applications`")
    return document


def read_checked(path: Path) -> dict[str, Any]:
    """Read a config and ``check`` it; errors begin with the path."""
    document = read_config(path)
    try:
        check(document)
    except ServeConfigInvalid as exc:
        raise ServeConfigInvalid(f"{path}: {exc}") from exc
    return document


def our_applications(document: dict[str, Any]) -> list[dict[str, Any]]:
    applications = document["applications"]
    return [each for each in applications if each.get("import_path") == IMPORT_PATH]


def deployment_of(application: dict[str, Any]) -> dict[str, Any]:
    """What the config says about the deployment, if anything."""
    named = [d for d in application.get("deployments") or [] if d.get("name") == DEPLOYMENT]
    return dict(named[0]) if named else {}


def check(document: dict[str, Any]) -> None:
    """Check `args`, `user_config` and `policy_kwargs` of every application that is ours.

    Reads the manifests of the bundles that they name. Raises ServeConfigInvalid, which names the
    application, the key, the value and what is allowed.
    """
    for application in our_applications(document):
        name = application.get("name", "default")
        for part, check_part in _parts(application):
            try:
                check_part()
            except ValidationError as exc:
                raise ServeConfigInvalid(f"{name}: {part}: {complaint(exc)}") from exc
            except (TreelineError, MonitoringError, ConfigError, TrafficUnfit) as exc:
                raise ServeConfigInvalid(f"{name}: {part}: {exc}") from exc


def _parts(application: dict[str, Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    deployment = deployment_of(application)
    args = application.get("args") or {}
    yield "args", lambda: check_settings(Settings.model_validate(args).resolved())
    yield "user_config", lambda: check_user_config(args, deployment.get("user_config") or {})
    policy = (deployment.get("autoscaling_config") or {}).get("policy") or {}
    if policy.get("policy_function") == LATENCY_POLICY:
        yield "policy_kwargs", lambda: config_of(policy.get("policy_kwargs") or {})
    known = [each.get("name") for each in application.get("deployments") or []]
    yield "deployments", lambda: check_names(known)


def check_settings(settings: Settings) -> None:
    """Check what `args` name: bundles, that they answer alike, and features that are masked."""
    manifest = read_manifest(bundle_folder(settings, settings.model.version))
    for version in settings.variants:
        columns_for(manifest, read_manifest(bundle_folder(settings, version)))
    policy = masking_policy(settings.masking, ANY_KEY)
    policy.require_known([feature.name for feature in manifest.features])


def check_user_config(args: dict[str, Any], given: dict[str, Any]) -> None:
    """Check a `user_config` on its own and beside the versions that `args` load."""
    traffic = UserConfig.model_validate(given).traffic
    traffic.require_loaded(Settings.model_validate(args).variants)


def check_names(deployments: list[Any]) -> None:
    for name in deployments:
        if name != DEPLOYMENT:
            raise ServeConfigInvalid(f"name {name!r} is not allowed: {DEPLOYMENT}")

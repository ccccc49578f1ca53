"""Treeline's own log lines go where Ray Serve's go: JSON, with the request id, in its log files."""

import logging
import traceback

PACKAGES = ("serve_app", "autoscaling", "monitoring")


def log_failure(logger: logging.Logger, message: str, exc: BaseException, request_id: str) -> None:
    """Log where something failed, and as what, but not in its own words: they may repeat inputs."""
    frames = "".join(traceback.format_tb(exc.__traceback__))
    logger.error(
        "%s: %s\n%s", message, type(exc).__name__, frames, extra={"request_id": request_id}
    )


def share_handlers() -> None:
    """Give our packages the handlers that Ray Serve has set up in this process."""
    serve_logger = logging.getLogger("ray.serve")
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = list(serve_logger.handlers)
        logger.setLevel(serve_logger.getEffectiveLevel())
        logger.propagate = False

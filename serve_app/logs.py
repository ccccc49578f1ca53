"""Treeline's own log lines go where Ray Serve's go: JSON, with the request id, in its log files."""

import logging

PACKAGES = ("serve_app", "autoscaling", "monitoring")


def share_handlers() -> None:
    """Give our packages the handlers that Ray Serve has set up in this process."""
    serve_logger = logging.getLogger("ray.serve")
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = list(serve_logger.handlers)
        logger.setLevel(serve_logger.getEffectiveLevel())
        logger.propagate = False

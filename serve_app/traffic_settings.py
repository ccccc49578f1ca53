"""`user_config.traffic`: who gets which version. serve_app/traffic.py says what it means."""

from collections.abc import Collection
from itertools import chain
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from serve_app.section import Name, Section

SplitUnit = Literal["session", "user", "request"]
Share = Annotated[float, Field(ge=0, le=1)]


class CanaryStep(Section):
    """A share and how long it lasts."""

    share: Share
    hold_s: float | None = Field(None, gt=0)


class Canary(Section):
    """A version whose share grows by the clock; every replica reads the same steps off it."""

    version: Name
    start: AwareDatetime
    steps: list[CanaryStep] = Field(min_length=1)

    @model_validator(mode="after")
    def _only_the_last_step_has_no_end(self) -> Self:
        for number, step in enumerate(self.steps[:-1]):
            if step.hold_s is None:
                raise ValueError(f"steps[{number}] has no `hold_s`; only the last may do without")
        return self


class Rule(Section):
    """When a version is promoted or rolled back by `treeline promote`; see docs/variants.md."""

    version: Name
    since: AwareDatetime
    margins: dict[str, float] = Field(min_length=1)
    min_units: int = Field(1_000, ge=100)
    plan_units: int = Field(10_000, ge=1)
    alpha: float = Field(0.05, gt=0, lt=1)


class TrafficUnfit(ValueError):
    """`user_config.traffic` names a version that is not loaded, or the champion."""


class Traffic(Section):
    """How requests are split over the loaded versions; what nobody gets is the champion's."""

    unit: SplitUnit = Field(
        "session",
        description="What stays with one version. A request without it stands for itself.",
    )
    salt: str = Field(
        "", max_length=64, description="Part of the hash; another one deals the units anew."
    )
    shares: dict[Name, Share] = Field(default_factory=dict, description="By version; sum up to 1.")
    canary: Canary | None = Field(
        None,
        description="`version`, `start` (RFC 3339, in quotes) and `steps`, each with `share` and "
        "`hold_s`, the last of which lasts. See variants.md.",
    )
    shadows: dict[Name, Share] = Field(
        default_factory=dict, description="By version: share of requests it gets a copy of."
    )
    rule: Rule | None = Field(
        None,
        description="What `treeline promote` decides by: `version`, `since` (RFC 3339, in quotes), "
        "`margins` by metric, and `min_units`, `plan_units` and `alpha`. Replicas do not read it.",
    )
    reason: str = Field(
        "user_config", max_length=500, description="Shown with the change to this split."
    )

    @field_validator("salt")
    @classmethod
    def _salt_is_a_key(cls, value: str) -> str:
        if len(value.encode()) > 64:
            raise ValueError("allowed: up to 64 bytes")
        return value

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        total = sum(self.shares.values())
        if self.canary is not None:
            if self.canary.version in self.shares:
                raise ValueError(f"{self.canary.version!r} is in `shares` and in `canary`")
            total += max(step.share for step in self.canary.steps)
        if total > 1.0 + 1e-9:
            raise ValueError(f"shares sum up to {total:g}; allowed: up to 1")
        return self

    def require_loaded(self, variants: Collection[str]) -> None:
        """Raise TrafficUnfit unless every version named is one of ``variants``."""
        canary = [] if self.canary is None else [self.canary.version]
        for version in chain(self.shares, self.shadows, canary):
            if version not in variants:
                allowed = ", ".join(variants) or "none, for `args.variants` is empty"
                raise TrafficUnfit(f"traffic names version {version!r}; allowed: {allowed}")

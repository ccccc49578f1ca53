"""Which version answers a request, and which shadows get a copy of it.

Used only where a replica has loaded more than one version; else its predictor answers directly.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from serve_app.prediction import PredictionFailedError, Predictor, Variant
from serve_app.schema import PredictRequest, PredictResponse
from serve_app.shadow import Shadow
from serve_app.traffic import (
    SHADOW,
    CanaryStep,
    Split,
    canary_steps,
    lay_out,
    point,
    shares_at,
    unit_id,
)
from serve_app.traffic_settings import SplitUnit, Traffic

logger = logging.getLogger(__name__)

MAX_CHANGES: Final = 100  # remembered for operators

Project = Callable[[PredictRequest], PredictRequest]


def projection(columns: Sequence[int] | None) -> Project:
    """Make a request of the champion's features one of another version's; None: they are equal."""
    if columns is None:
        return lambda request: request

    def project(request: PredictRequest) -> PredictRequest:
        rows = [tuple(row[at] for at in columns) for row in request.rows]
        return PredictRequest(rows, request.top_k, request.context)

    return project


@dataclass(frozen=True, slots=True, kw_only=True)
class Further:
    """A version beside the champion: its predictor as a challenger, and itself as a shadow."""

    challenger: Predictor
    shadow: Shadow
    project: Project


class TrafficChange(msgspec.Struct, frozen=True):
    """When a replica began to split differently, and why."""

    ts: datetime
    reason: str
    shares: dict[str, float]


class TrafficState(msgspec.Struct, frozen=True):
    """Who gets what now, as one replica sees it; ``shadows`` are shares of requests copied."""

    champion: str
    versions: tuple[str, ...]
    unit: SplitUnit
    shares: dict[str, float]
    shadows: dict[str, float]
    canary: tuple[CanaryStep, ...]
    changes: tuple[TrafficChange, ...]


class Router:
    """Splits requests as ``apply`` says; before that, and by default, the champion has them all."""

    def __init__(
        self, champion: Predictor, further: Mapping[str, Further], clock: Callable[[], float]
    ) -> None:
        """``clock`` gives seconds since 1970, for canaries."""
        self._champion = champion
        self._further = further
        self._clock = clock
        self._name = champion.variant.stream.version
        self._traffic = Traffic()
        self._salt = b""
        self._shares: dict[str, float] = {}
        self._split = Split((), (self._name,))
        self._shadows: list[tuple[str, Shadow, float]] = []
        self._changes: deque[TrafficChange] = deque(maxlen=MAX_CHANGES)
        self.apply(self._traffic)

    @property
    def variant(self) -> Variant:
        """The champion: requests are decoded by its features."""
        return self._champion.variant

    @property
    def state(self) -> TrafficState:
        traffic = self._traffic
        return TrafficState(
            champion=self._name,
            versions=(self._name, *self._further),
            unit=traffic.unit,
            shares=dict(self._shares),
            shadows=dict(traffic.shadows),
            canary=tuple(canary_steps(traffic.canary) if traffic.canary else ()),
            changes=tuple(self._changes),
        )

    def apply(self, traffic: Traffic) -> None:
        """Split by new settings from the next request on.

        Raises TrafficUnfit, and changes nothing, when a version is not loaded or is the champion.
        """
        traffic.require_loaded(self._further)
        self._traffic = traffic
        self._salt = traffic.salt.encode()
        self._shadows = [
            (version, self._further[version].shadow, share)
            for version, share in traffic.shadows.items()
        ]
        self.follow_clock(traffic.reason)

    def follow_clock(self, reason: str = "canary step") -> bool:
        """Move on to the canary's step of this moment; True when the split has changed.

        Equal shares may be laid out differently: a share that became a canary has another place.
        """
        now_s = self._clock()
        shares = shares_at(self._traffic, self._name, now_s)
        canary = self._traffic.canary
        split = lay_out(shares, self._name, canary.version if canary else None)
        if shares == self._shares and split == self._split:
            return False
        self._changes.append(
            TrafficChange(datetime.fromtimestamp(now_s, UTC), reason, dict(shares))
        )
        self._shares = shares
        self._split = split
        logger.info("traffic is split: %s (%s)", shares, reason)
        return True

    async def answer(
        self, request: PredictRequest, request_id: str, *, started_s: float
    ) -> PredictResponse:
        """Answer as the chosen version's Predictor does, and offer copies to the shadows."""
        version = self._choose(request, request_id)
        try:
            response = await self._ask(version, request, request_id, started_s)
        except PredictionFailedError:
            self._offer(request, request_id, version)  # it reached a model, and is logged
            raise
        self._offer(request, request_id, version)
        return response

    async def _ask(
        self, version: str, request: PredictRequest, request_id: str, started_s: float
    ) -> PredictResponse:
        if version == self._name:
            return await self._champion.answer(request, request_id, started_s=started_s)
        chosen = self._further[version]
        projected = chosen.project(request)
        return await chosen.challenger.answer(projected, request_id, started_s=started_s)

    def _choose(self, request: PredictRequest, request_id: str) -> str:
        split = self._split
        if len(split.versions) == 1:
            return split.versions[0]
        who = request.context
        identity = unit_id(
            self._traffic.unit,
            session_id=who.session_id,
            user_id=who.user_id,
            request_id=request_id,
        )
        return split.version_at(point(identity, self._salt))

    def _offer(self, request: PredictRequest, request_id: str, version: str) -> None:
        for name, shadow, share in self._shadows:
            if name != version and point(request_id, self._salt, SHADOW) < share:
                shadow.offer(request, request_id)

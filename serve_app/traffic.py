"""Who gets which version: shares, steps of a canary and the sticky split. Pure.

Every unit (a session, a user or a request) has a fixed point in [0, 1), a salted hash of its id,
and every version a part of that interval:

    0 ─ canary ─┊─ champion: what is left ─┊─ last of `shares` ─┊─ … ─┊─ first of `shares` ─ 1

A version that grows takes units of the champion and gives none back, and a canary's growth moves
nobody else's units. The hash has a purpose of its own (BLAKE2b's `person`), so the split says
nothing about which events sampling keeps, nor about which requests are shadowed.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serve_app.traffic_settings import Canary, SplitUnit, Traffic

SPLIT: Final = b"treeline-traffic"
SHADOW: Final = b"treeline-shadow"


def point(unit_id: str, salt: bytes, purpose: bytes = SPLIT) -> float:
    """Map an id to [0, 1): the first 53 bits of its keyed 8-byte BLAKE2b, over 2**53.

    >>> point("session-1", b"2026-11") == point("session-1", b"2026-11")
    True
    """
    digest = hashlib.blake2b(unit_id.encode(), digest_size=8, key=salt, person=purpose).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def unit_id(
    unit: SplitUnit, *, session_id: str | None, user_id: str | None, request_id: str
) -> str:
    """Return what is hashed: a request without a session or user stands for itself."""
    match unit:
        case "session":
            return request_id if session_id is None else session_id
        case "user":
            return request_id if user_id is None else user_id
        case "request":
            return request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryStep:
    """One step of a canary in absolute time, seconds since 1970; the last may have no end."""

    share: float
    from_s: float
    until_s: float | None


def canary_steps(canary: Canary) -> list[CanaryStep]:
    """Lay the steps out in time, one after the other from ``canary.start``."""
    steps = []
    at_s = canary.start.timestamp()
    for step in canary.steps:
        until_s = None if step.hold_s is None else at_s + step.hold_s
        steps.append(CanaryStep(share=step.share, from_s=at_s, until_s=until_s))
        at_s = until_s or at_s
    return steps


def canary_share(canary: Canary, now_s: float) -> float:
    """Return its share now: 0 before the start, the last step's for ever after the end."""
    share = 0.0
    for step in canary_steps(canary):
        if now_s >= step.from_s:
            share = step.share
    return share


def shares_at(traffic: Traffic, champion: str, now_s: float) -> dict[str, float]:
    """Return the share of every version that has one, the champion's rest included; sum 1."""
    shares = dict(traffic.shares)
    if traffic.canary is not None:
        shares[traffic.canary.version] = canary_share(traffic.canary, now_s)
    return {champion: max(0.0, 1.0 - sum(shares.values())), **shares}


def promoted(traffic: Traffic, version: str, reason: str) -> Traffic:
    """Give a version everything. Its rule has done its work."""
    shadows = {name: share for name, share in traffic.shadows.items() if name != version}
    changes = {"shares": {version: 1.0}, "canary": None, "rule": None}
    return traffic.model_copy(update={**changes, "shadows": shadows, "reason": reason})


def rolled_back(traffic: Traffic, version: str, reason: str) -> Traffic:
    """Take a version's traffic away; what it had is the champion's again."""
    canary = traffic.canary
    if canary is not None and canary.version == version:
        canary = None
    shares = {name: share for name, share in traffic.shares.items() if name != version}
    changes = {"shares": shares, "canary": canary, "rule": None, "reason": reason}
    return traffic.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Split:
    """``versions[i]`` has the points from ``bounds[i - 1]`` up to, not including, ``bounds[i]``."""

    bounds: tuple[float, ...]  # one less than versions
    versions: tuple[str, ...]

    def version_at(self, at: float) -> str:
        """Find whose part a point lies in.

        >>> Split((0.25,), ("2.0.0", "1.0.0")).version_at(0.25)
        '1.0.0'
        """
        return self.versions[bisect_right(self.bounds, at)]


def lay_out(shares: Mapping[str, float], champion: str, canary: str | None) -> Split:
    """Give every version its part of [0, 1); ``shares`` are those of ``shares_at``.

    >>> lay_out({"1": 0.7, "2": 0.2, "3": 0.1}, "1", canary="3")
    Split(bounds=(0.1, 0.8), versions=('3', '1', '2'))
    """
    bounds: list[float] = []
    versions: list[str] = [champion]
    top = 1.0
    for version, share in shares.items():
        if version not in (champion, canary) and share > 0.0:
            top = max(0.0, top - share)
            bounds.insert(0, top)
            versions.insert(1, version)
    if canary is not None and shares.get(canary, 0.0) > 0.0:
        bounds.insert(0, shares[canary])
        versions.insert(0, canary)
    return Split(tuple(bounds), tuple(versions))

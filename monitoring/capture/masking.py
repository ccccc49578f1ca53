"""Masking: what of an event may be stored, decided per field before anything leaves the process.

Invariants:

- Default deny for what callers send along: a tag or context field that is not named is dropped,
  its key too, since keys can hold personal data. ``user_id`` and ``session_id`` become pseudonyms
  unless the rules say otherwise. Features that are not named are kept: they are the model's input.
- A value that its rule can't handle is stored as nothing. Masking fails closed.
- ``drop``, ``truncate`` and ``bucket`` are idempotent. A pseudonym of a pseudonym is another one.

Pseudonyms are keyed BLAKE2b (RFC 7693, the MAC mode), 128 bits in hex: 0.6 microseconds against
1.5 for HMAC-SHA256. One value has one pseudonym in every field, so that a person can be found and
erased with the key at hand and by nobody else.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from monitoring.errors import MaskingPolicyInvalid
from monitoring.events import Dtype, Feature

Action = Literal["keep", "drop", "hmac", "truncate", "bucket"]
MIN_KEY_BYTES: Final = 16
_CACHED_PSEUDONYMS: Final = 16_384  # about 4 MB
_EXACT_FLOAT: Final = 2.0**53

Mask = Callable[[Any], Any]


class FieldRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to one field: ``length`` in characters for truncate, ``width`` for bucket."""

    action: Action
    length: int | None = None
    width: float | None = None


class MaskingRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain settings, as they stand in a configuration file."""

    user_id: FieldRule = FieldRule("hmac")
    session_id: FieldRule = FieldRule("hmac")
    tags: dict[str, FieldRule] = {}
    features: dict[str, FieldRule] = {}


class MaskingPolicy:
    """Rules and a key, checked; raises ``MaskingPolicyInvalid`` naming the field.

    ``key`` needs at least 16 bytes. ``policy_id`` tells policies apart, keys included, and does not
    reveal the key.

    >>> policy = MaskingPolicy(MaskingRules(), key=bytes(32))
    >>> policy.mask_tags({"channel": "web"}) is None
    True
    """

    def __init__(self, rules: MaskingRules, *, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise MaskingPolicyInvalid(
                f"masking key has {len(key)} bytes; it needs at least {MIN_KEY_BYTES}"
            )
        self.rules = rules
        self._key = key if len(key) <= 64 else hashlib.blake2b(key).digest()
        self._pseudonym = lru_cache(_CACHED_PSEUDONYMS)(self._new_pseudonym)
        _require_text_rule("user_id", rules.user_id)
        _require_text_rule("session_id", rules.session_id)
        self.mask_user_id = self._mask("user_id", rules.user_id, "string")
        self.mask_session_id = self._mask("session_id", rules.session_id, "string")
        self._tags = {name: self._text_mask(f"tags.{name}", r) for name, r in rules.tags.items()}
        for name, rule in rules.features.items():
            self._mask(f"features.{name}", rule)
        self.policy_id = self._fingerprint()

    def __repr__(self) -> str:
        return f"MaskingPolicy(policy_id={self.policy_id!r}, rules={self.rules!r})"

    def pseudonym(self, value: str) -> str:
        """What an ``hmac`` field stores for ``value``; for finding and erasing a person."""
        return self._pseudonym(value)

    def require_known(self, features: Collection[str]) -> None:
        """Refuse rules for features that no model of the application has: a typo would leak."""
        for name in self.rules.features:
            if name not in features:
                raise MaskingPolicyInvalid(
                    f"masking rule features.{name}: no such feature; known are {sorted(features)}"
                )

    def for_feedback(self) -> "MaskingPolicy":
        """The policy of feedback: its columns are no features, though one may share a name."""
        return MaskingPolicy(msgspec.structs.replace(self.rules, features={}), key=self._key)

    def logged_features(self, features: Sequence[Feature]) -> tuple[Feature, ...]:
        """The features as they are stored: pseudonyms and prefixes are strings."""
        return tuple(Feature(f.name, self._logged_dtype(f)) for f in features)

    def row_masks(self, features: Sequence[Feature]) -> tuple[tuple[int, Mask], ...]:
        """Position and mask of every feature that is not kept, for ``mask_rows``."""
        rules = self.rules.features
        return tuple(
            (at, self._mask(f"features.{f.name}", rules[f.name], f.dtype))
            for at, f in enumerate(features)
            if f.name in rules and rules[f.name].action != "keep"
        )

    def mask_tags(self, tags: Mapping[str, object] | None) -> dict[str, str] | None:
        """The named tags, masked and as text; None when nothing is left."""
        if not tags or not self._tags:
            return None
        masked = {}
        for name, mask in self._tags.items():
            value = mask(tags[name]) if name in tags else None
            if value is not None:
                masked[name] = value
        return masked or None

    def _logged_dtype(self, feature: Feature) -> Dtype:
        rule = self.rules.features.get(feature.name)
        return "string" if rule and rule.action in {"hmac", "truncate"} else feature.dtype

    def _mask(self, field: str, rule: FieldRule, dtype: Dtype | None = None) -> Mask:
        _require_sound(field, rule, dtype)
        match rule.action:
            case "keep":
                return _keep
            case "drop":
                return _nothing
            case "hmac":
                return _closed(lambda value: self._pseudonym(_text(value)))
            case "truncate":
                return _closed(lambda value: _text(value)[: rule.length])
            case "bucket":
                width = float(rule.width or 1.0)
                return _closed(lambda value: lower_edge(_number(value), width))

    def _text_mask(self, field: str, rule: FieldRule) -> Mask:
        mask = self._mask(field, rule)
        return _closed(lambda value: None if (kept := mask(value)) is None else _text(kept))

    def _new_pseudonym(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self._key, digest_size=16).hexdigest()

    def _fingerprint(self) -> str:
        # Keyed, so that a guessed key can be checked but nothing of the key can be read.
        rules = msgspec.json.encode(self.rules, order="sorted")
        return hashlib.blake2b(rules, key=self._key, digest_size=8, person=b"policy id").hexdigest()


def mask_rows(
    rows: Sequence[Sequence[Any]], masks: tuple[tuple[int, Mask], ...]
) -> Sequence[Sequence[Any]]:
    """Masked copies of the rows, or the rows themselves where nothing is to be masked."""
    if not masks:
        return rows
    copies = [list(row) for row in rows]
    for row in copies:
        for at, mask in masks:
            row[at] = mask(row[at])
    return copies


def lower_edge(value: float, width: float) -> float:
    """Greatest multiple of ``width`` at or below ``value``; whole numbers stay whole.

    >>> lower_edge(37, 10), lower_edge(-1.0, 2.5)
    (30, -2.5)
    """
    if isinstance(value, int) and float(width).is_integer():
        return value // int(width) * int(width)
    if not math.isfinite(value) or abs(value / width) >= _EXACT_FLOAT:
        return value  # neighbouring floats are further apart than a bucket is wide
    steps = math.floor(value / width)
    # The quotient is rounded: put an edge into the bucket that it begins.
    if (steps + 1) * width <= value:
        steps += 1
    elif steps * width > value:
        steps -= 1
    return steps * width


def _keep(value: Any) -> Any:
    return value


def _nothing(_: Any) -> None:
    return None


def _closed(mask: Mask) -> Mask:
    """Missing stays missing, and what the mask can't handle becomes missing."""

    def masked(value: Any) -> Any:
        if value is None:
            return None
        try:
            return mask(value)
        except (TypeError, ValueError, OverflowError):
            return None

    return masked


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(f"no text form for {type(value).__name__}")


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a truth value has no bucket")
    return value if isinstance(value, int | float) else float(value)


def _require_text_rule(field: str, rule: FieldRule) -> None:
    if rule.action == "bucket":
        raise _invalid(field, rule, "keep, drop, hmac or truncate: an id is text")


def _require_sound(field: str, rule: FieldRule, dtype: Dtype | None) -> None:
    """Check one rule; ``dtype`` is None where the value's type is not known beforehand."""
    if (rule.length is not None) != (rule.action == "truncate"):
        raise _invalid(field, rule, "a length with truncate and nowhere else")
    if (rule.width is not None) != (rule.action == "bucket"):
        raise _invalid(field, rule, "a width with bucket and nowhere else")
    if rule.length is not None and rule.length < 1:
        raise _invalid(field, rule, f"length 1 or more, not {rule.length}")
    if rule.width is None:
        return
    if not (rule.width > 0 and math.isfinite(rule.width)):
        raise _invalid(field, rule, f"a width above 0, not {rule.width}")
    if dtype in {"string", "bool"}:
        raise _invalid(field, rule, f"keep, drop, hmac or truncate: it holds {dtype} values")
    if dtype == "int64" and rule.width % 1:
        raise _invalid(field, rule, f"a whole width for whole numbers, not {rule.width}")


def _invalid(field: str, rule: FieldRule, allowed: str) -> MaskingPolicyInvalid:
    return MaskingPolicyInvalid(f"masking rule {field}, action {rule.action}: allowed is {allowed}")

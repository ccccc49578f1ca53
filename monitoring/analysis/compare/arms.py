"""From rows of the log to the arms of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.compare.judge import Arms
from monitoring.analysis.compare.metrics import Metric
from monitoring.analysis.compare.moments import Moments, unit_moments

Unit = Literal["session", "request", "user"]
SHADOW: Final = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The rows of one version. A ``shadow`` was never shown; it pairs with the control."""

    name: str
    shadow: bool
    rows: pa.Table


def split_arms(rows: pa.Table) -> list[Arm]:
    """Split rows by version, the one with the most champion rows first: it is the control."""
    arms = []
    for version in sorted(pc.unique(rows["version"]).to_pylist()):
        own = rows.filter(pc.equal(rows["version"], version))
        shadowed = pc.equal(own["variant"], SHADOW)
        shown, copies = own.filter(pc.invert(shadowed)), own.filter(shadowed)
        # A version that did both is judged by what it did more of: a shadow may have been asked by
        # name now and then.
        shadow = copies.num_rows > shown.num_rows
        arms.append(Arm(name=version, shadow=shadow, rows=copies if shadow else shown))
    champions = {arm.name: _count(arm.rows, "variant", "champion") for arm in arms}
    return sorted(arms, key=lambda arm: (-champions[arm.name], arm.name))


def _count(rows: pa.Table, column: str, value: str) -> int:
    return int(pc.sum(pc.equal(rows[column], value)).as_py() or 0)


def unit_ids(rows: pa.Table, unit: Unit) -> NDArray[np.int64]:
    """Number the units; a row without a session or user is a unit with its request."""
    request = pc.binary_join_element_wise("r", rows["request_id"], ":")
    if unit == "request":
        ids = request
    else:
        ids = pc.coalesce(pc.binary_join_element_wise("u", rows[f"{unit}_id"], ":"), request)
    codes: NDArray[np.int64] = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def arms_for(metric: Metric, control: Arm, treatment: Arm, unit: Unit) -> Arms | None:
    """Sum up both arms, and for a shadow the pairs; None where the metric does not apply."""
    if metric.shown_only and treatment.shadow:
        return None
    return Arms(
        control=_moments(metric, control.rows, unit),
        treatment=_moments(metric, treatment.rows, unit),
        pairs=_pairs(metric, control, treatment, unit) if treatment.shadow else None,
    )


def _moments(metric: Metric, rows: pa.Table, unit: Unit) -> Moments:
    values = metric.values(rows)
    here = ~np.isnan(values)
    weights = rows["weight"].to_numpy()
    return unit_moments(values[here], weights[here], unit_ids(rows, unit)[here])


def _pairs(metric: Metric, control: Arm, shadow: Arm, unit: Unit) -> Moments:
    """Sum up shadow minus control over the rows that both answered."""
    left = _keyed(metric, control.rows).append_column(
        "unit", pa.array(unit_ids(control.rows, unit))
    )
    right = _keyed(metric, shadow.rows)
    both = left.join(right, ["request_id", "row"], join_type="inner", right_suffix="_shadow")
    difference = both["value_shadow"].to_numpy() - both["value"].to_numpy()
    here = ~np.isnan(difference)
    # Both were kept by one hash of the request id, so the pair was with the lesser probability.
    weights = np.maximum(both["weight"].to_numpy(), both["weight_shadow"].to_numpy())
    return unit_moments(difference[here], weights[here], both["unit"].to_numpy()[here])


def _keyed(metric: Metric, rows: pa.Table) -> pa.Table:
    """Values by request and row; of a repeated request the first answer counts."""
    table = rows.select(["request_id", "row", "weight"])
    table = table.append_column("value", pa.array(metric.values(rows)))
    grouped = table.group_by(["request_id", "row"], use_threads=False)
    first = grouped.aggregate([("weight", "first"), ("value", "first")])
    return first.rename_columns({"weight_first": "weight", "value_first": "value"})


def unit_counts(arms: Sequence[Arm], unit: Unit) -> dict[str, int]:
    """Count the units of each arm that was shown, for the check of the split."""
    return {arm.name: len(np.unique(unit_ids(arm.rows, unit))) for arm in arms if not arm.shadow}


def unequal_weights(arms: Sequence[Arm]) -> bool:
    """Tell whether the log keeps different shares of arms, so that counts mean nothing."""
    found = {float(w) for arm in arms for w in pc.unique(arm.rows["weight"]).to_pylist()}
    return len(found) > 1

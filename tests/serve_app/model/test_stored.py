import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from serve_app.model.forest import compile_forest
from serve_app.model.packed import PackedForest
from serve_app.model.stored import check_words, compiled_name, load_compiled, save_compiled

ROWS = np.random.default_rng(0).normal(size=(200, 4))


def forest(labels):
    y = np.array(labels)[(ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0)]
    return RandomForestClassifier(7, random_state=0).fit(ROWS, y)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "c"],
        [1, 2, 3],
        [1.0, 2.0, 3.0],
        [False, True, True],
        np.array(list("xyz"), object),
    ],
)
def test_a_stored_classifier_answers_alike(tmp_path, labels):
    compiled = compile_forest(forest(labels))
    path = tmp_path / compiled_name("ab" * 32)
    save_compiled(compiled, path)
    loaded = load_compiled(path, kernel="numpy")
    assert loaded.reason is None
    assert loaded.classes_.dtype == compiled.classes_.dtype
    assert (loaded.predict(ROWS) == compiled.predict(ROWS)).all()
    assert loaded.predict_proba(ROWS).tobytes() == compiled.predict_proba(ROWS).tobytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_stored_regressor_with_two_outputs_answers_alike(tmp_path):
    model = RandomForestRegressor(5, random_state=0).fit(ROWS, ROWS[:, :2])
    compiled = compile_forest(model)
    save_compiled(compiled, tmp_path / "f.npz")
    loaded = load_compiled(tmp_path / "f.npz")
    assert loaded.predict(ROWS).tobytes() == model.predict(ROWS).tobytes()


def test_labels_that_only_pickle_could_hold_are_not_stored(tmp_path):
    compiled = compile_forest(forest(np.array(["a", "b", "c"], dtype=object)))
    odd = dataclasses.replace(compiled.description, classes=(np.array([1, "b"], dtype=object),))
    compiled.description = odd
    with pytest.raises(ValueError, match="neither text nor of one NumPy type"):
        save_compiled(compiled, tmp_path / "f.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "f.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a compiled forest"):
        load_compiled(path)


def test_an_array_that_needs_unpickling_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, header=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is not a compiled forest"):
        load_compiled(path)


def test_a_missing_file_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_compiled(tmp_path / "f.npz")


PACKED: PackedForest = compile_forest(forest(["a", "b", "c"])).packed


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_changed_word_can_lead_a_walk_astray(data):
    """A word is refused, or changes only a threshold, a feature or which leaf value is taken."""
    words = PACKED.words.copy()
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] ^= np.int64(1) << np.int64(data.draw(st.integers(0, 62)))
    changed = dataclasses.replace(PACKED, words=words)
    try:
        check_words(changed)
    except ValueError:
        return
    for base in PACKED.bases:
        node = base
        for _ in range(len(words)):
            word = int(words[node])
            if word < 0:
                assert 0 <= word & 0xFFFFFFFF < len(PACKED.values)
                break
            node = base + (((word >> 32) & 0x7FFFFFFF) >> PACKED.slot_bits)
        else:
            raise AssertionError("the walk does not end")


def test_the_packed_form_of_a_real_forest_is_sound():
    check_words(PACKED)

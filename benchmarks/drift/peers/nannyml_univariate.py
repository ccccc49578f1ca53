"""NannyML's univariate drift with its defaults, chunks of the window's own size."""

import nannyml
import pyarrow as pa
from harness import Judge, run


def prepare(baseline: pa.Table) -> Judge:
    reference = baseline.to_pandas()
    texts = [name for name in reference if reference[name].dtype == object]
    fitted: dict[int, nannyml.UnivariateDriftCalculator] = {}

    def judged(window: pa.Table) -> tuple[bool, float]:
        rows = window.num_rows
        if rows not in fitted:
            calculator = nannyml.UnivariateDriftCalculator(
                column_names=list(reference),
                treat_as_categorical=texts,
                chunk_size=min(rows, len(reference) // 2),
            )
            fitted[rows] = calculator.fit(reference)
        frame = fitted[rows].calculate(window.to_pandas()).filter(period="analysis").to_df()
        flagged, most = False, -1.0
        for column in frame.columns.get_level_values(0).unique():
            if column == "chunk":
                continue
            found = frame[column].iloc[0]
            method = found.index.get_level_values(0)[0]
            value, upper = found[method, "value"], found[method, "upper_threshold"]
            flagged |= bool(found[method, "alert"])
            # Shares of the way to the threshold, so that columns can be compared.
            most = max(most, float(value / upper)) if upper and upper == upper else most
        return flagged, most

    return judged


if __name__ == "__main__":
    run(prepare)

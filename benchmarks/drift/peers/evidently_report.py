"""Evidently's data drift preset with its defaults."""

import pyarrow as pa
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from harness import Judge, run


def prepare(baseline: pa.Table) -> Judge:
    frame = baseline.to_pandas()
    texts = [name for name in frame if frame[name].dtype == object]
    definition = DataDefinition(
        numerical_columns=[name for name in frame if name not in texts],
        categorical_columns=texts,
    )
    reference = Dataset.from_pandas(frame, data_definition=definition)
    report = Report([DataDriftPreset()])

    def judged(window: pa.Table) -> tuple[bool, float]:
        current = Dataset.from_pandas(window.to_pandas(), data_definition=definition)
        flagged, most = False, 0.0
        for metric in report.run(current, reference).dict()["metrics"]:
            settings = metric["config"]
            if "ValueDrift" not in settings["type"]:
                continue
            value, threshold = float(metric["value"]), float(settings["threshold"])
            # Above 1 is drift: distances grow with it, p-values fall.
            falls = "p_value" in settings["method"]
            ratio = threshold / max(value, 1e-300) if falls else value / threshold
            flagged |= ratio >= 1
            most = max(most, ratio)
        return flagged, most

    return judged


if __name__ == "__main__":
    run(prepare)

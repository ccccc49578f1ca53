"""BentoML 1.4: a service class with one API of named inputs."""

import os
from typing import Any

import bentoml
import joblib


@bentoml.service(traffic={"timeout": 60}, workers=1)
class Predictor:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])
        self.names = [f"feature_{number:02d}" for number in range(20)]

    @bentoml.api
    def predict(self, row: dict[str, float]) -> dict[str, Any]:
        probabilities = self.model.predict_proba([[row[name] for name in self.names]])[0]
        label = str(self.model.classes_[probabilities.argmax()])
        return {"label": label, "probabilities": probabilities.tolist()}

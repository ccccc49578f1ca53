"""Ray Serve as its documentation shows it: a FastAPI ingress around a scikit-learn model."""

import os
from typing import Any

import joblib
from fastapi import FastAPI
from pydantic import BaseModel, create_model
from ray import serve

app = FastAPI()
names = [f"feature_{number:02d}" for number in range(20)]
Row = create_model("Row", **dict.fromkeys(names, (float, ...)))


class Answer(BaseModel):
    label: str
    probabilities: list[float]


@serve.deployment
@serve.ingress(app)
class Predictor:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @app.post("/predict")
    def predict(self, row: Row) -> Answer:  # type: ignore[valid-type]
        probabilities = self.model.predict_proba([[getattr(row, name) for name in names]])[0]
        label = str(self.model.classes_[probabilities.argmax()])
        return Answer(label=label, probabilities=probabilities.tolist())


def build(args: dict[str, str]) -> Any:
    return Predictor.bind()

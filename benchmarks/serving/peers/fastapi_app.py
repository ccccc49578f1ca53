"""The tutorial's service: FastAPI, a pydantic row, scikit-learn."""

import os

import joblib
from fastapi import FastAPI
from pydantic import BaseModel, create_model

app = FastAPI()
model = joblib.load(os.environ["BENCH_MODEL"])
names = [f"feature_{number:02d}" for number in range(20)]
Row = create_model("Row", **dict.fromkeys(names, (float, ...)))


class Answer(BaseModel):
    label: str
    probabilities: list[float]


@app.post("/predict")
def predict(row: Row) -> Answer:  # type: ignore[valid-type]
    probabilities = model.predict_proba([[getattr(row, name) for name in names]])[0]
    label = str(model.classes_[probabilities.argmax()])
    return Answer(label=label, probabilities=probabilities.tolist())

"""LitServe: decode, predict, encode; one worker on the CPU."""

import os
from typing import Any

import joblib
import litserve


class Predictor(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])
        self.names = [f"feature_{number:02d}" for number in range(20)]

    def decode_request(self, request: dict[str, float]) -> list[float]:
        return [request[name] for name in self.names]

    def predict(self, row: list[float]) -> Any:
        return self.model.predict_proba([row])[0]

    def encode_response(self, probabilities: Any) -> dict[str, Any]:
        label = str(self.model.classes_[probabilities.argmax()])
        return {"label": label, "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Predictor(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False)

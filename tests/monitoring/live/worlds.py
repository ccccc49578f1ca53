"""An agent whose rows are counted live, without processes or threads."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from monitoring.agent.segment import SealedSegment
from monitoring.agent.settings import InputLimits, SamplingSettings
from monitoring.analysis.drift import fit_baseline
from monitoring.live.counting import Counting
from monitoring.live.expectations import Expectation, Expectations
from monitoring.live.store import Store
from monitoring.live.window import StreamKey
from tests.monitoring.agent.conftest import Agent

KEY = StreamKey("credit", "1.0.0", "champion")
DRIFT_WINDOW_S = 30


def training(rows: int = 400) -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "x_age": rng.normal(40.0, 10.0, rows),
            "x_job": rng.choice(["clerk", "cook"], rows).tolist(),
        }
    )


EXPECTED = Expectation(
    profile=fit_baseline(training()),
    reason=None,
    limits={
        "age": InputLimits(min=0.0, max=80.0),
        "job": InputLimits(categories=("clerk", "cook")),
    },
)
UNKNOWN = Expectation(profile=None, reason="no bundle")


@dataclass
class World:
    """A folder with an agent and the process that counts for it; either may die at any time."""

    folder: Path
    epoch: str = "e1"
    shard: str = "0"
    sink: object = None
    expected: Expectation = EXPECTED
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    def __post_init__(self) -> None:
        self.agent = Agent(
            self.folder,
            epoch=self.epoch,
            shard=self.shard,
            shards=2,
            sink=self.sink,
            sampling=self.sampling,
            keep_aside=True,
            follower=self,
        )
        self.start_counting()

    def start_counting(self) -> None:
        self.store = Store(self.folder / "state" / "live" / "live.sqlite", DRIFT_WINDOW_S)
        expectations = Expectations(lambda _model, _version: self.expected, self.agent.clock)
        self.counting = Counting(self.store, expectations, self.agent.clock)

    def finish(self, segment: SealedSegment) -> None:
        """Be asked by the uploader before it deletes a segment."""
        self.counting.count([(segment.path, segment.bytes)])

    def count(self) -> int:
        contents = self.agent.spool.contents()
        rows = self.counting.count(list(contents.segments))
        self.agent.spool.release_aside(contents.aside_mark)
        return rows

    def die(self) -> None:
        self.store.close()
        self.agent.die()

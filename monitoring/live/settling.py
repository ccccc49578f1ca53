"""Days as they stood an hour after their end: what a version's own past is made of.

A day at whose time nobody looked is left out.
"""

from typing import Final

from monitoring.analysis.compare.sequences import MIN_UNITS
from monitoring.live.outcome_tables import all_joined, settle
from monitoring.live.own_past import DAYS
from monitoring.live.store import DAY_S, Store

SETTLES_S: Final = 3_600


def settle_day(store: Store, now_s: float) -> None:
    """Keep yesterday as it stands, within the hour in which that is due.

    It stands once counting has passed the moment from which that is so, in every shard that was
    heard of since the day began, and the feedback from before it is joined. A backlog of more than
    that hour leaves the day out.
    """
    start_s = (int(now_s) - SETTLES_S) // DAY_S * DAY_S - DAY_S
    due_s = start_s + DAY_S + SETTLES_S
    if now_s < due_s + SETTLES_S and store.caught_up(due_s, since_s=start_s):
        with store.transaction() as db:
            if all_joined(db, due_s):
                settle(db, DAY_S, start_s, MIN_UNITS, DAYS)

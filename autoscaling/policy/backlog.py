"""What will be waiting when new replicas are up, and how many it takes to work it off.

A fluid model: requests come at ``rps``, each replica takes ``replica_rps``, replicas on order join
after what is left of their cold start.
"""

from collections.abc import Sequence


def when_help_arrives(
    waiting: float,
    rps: float,
    replica_rps: float,
    running: int,
    orders: Sequence[tuple[float, int]],
    cold_start_s: float,
    now_s: float,
) -> float:
    """Requests that will wait when a replica ordered now begins to serve."""
    backlog = waiting
    replicas = running
    at_s = 0.0
    joins = [(max(ordered_s + cold_start_s - now_s, 1.0), count) for ordered_s, count in orders]
    for joined_s, count in [*sorted(joins), (cold_start_s, 0)]:
        until_s = min(joined_s, cold_start_s)
        backlog = max(backlog + (rps - replicas * replica_rps) * (until_s - at_s), 0.0)
        replicas += count
        at_s = until_s
    return backlog

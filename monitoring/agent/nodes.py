"""Which node somebody should look at: what dead replicas and agents have left on its disk.

Journals and spools lie on the disk of their node. Replicas hand over the journals that they find on
their own node. A node is looked at by a task that is pinned there,

- when a replica fell silent on it without having closed its journals, and none lives there that
  would hand them over, or none has said within a minute that it did;
- once in an agent's life in any case, for this agent knows only what its own disk remembers.

A node that is gone cannot be looked at: what it holds waits for its return, and is shown. It comes
back under another name. An agent that finds itself on the disk of such a node sees which journals
are left there: replicas here hand them over, and nobody waits for the others. What a look has found
there stays shown for this agent's life, but that nobody could look is forgotten with the node.
"""

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from monitoring.agent.fleet import Fleet, is_alive
from monitoring.events import ReplicaReport

SETTLING_S: Final = 30.0  # an application that starts has replicas on its nodes soon
LEASE_S: Final = 90.0  # a look takes no longer
NEIGHBOUR_S: Final = 60.0  # in which a living replica of the same node hands over
PAUSE_S: Final = 10.0  # between two looks at a node
PROBLEM_PAUSE_S: Final = 60.0  # where the last one met a problem


class Poll(msgspec.Struct, frozen=True):
    """An agent's answer: the node it lives on, and the one that should be looked at, if any."""

    here: str
    look_at: str | None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What came of looking at a node's disk.

    ``handed_over`` are the producers whose journals are gone, ``left`` those whose journals are
    still there, in use or not; None where nobody could look. ``problems`` say what could not be
    handed over, and why.
    """

    node: str
    handed_over: tuple[str, ...] = ()
    left: tuple[str, ...] | None = ()
    segments: int = 0
    problems: tuple[str, ...] = ()


class NodeHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose disk may hold events of replicas that died, or whose last look met a problem.

    ``unacknowledged`` counts events as of the replicas' last reports; there may be later ones.
    """

    node: str
    alive: bool
    replicas: int
    silent_s: float
    unacknowledged: int
    problems: tuple[str, ...]


class Nodes:
    """Keeps the leases: a node is looked at by one task at a time. Thread-safe."""

    def __init__(
        self,
        here: str,
        fleet: Fleet,
        clock: Callable[[], float],
        *,
        disk: str = "",
        journals: Path = Path("journal"),
    ) -> None:
        """``journals`` is where replicas that tell of this ``disk`` keep theirs."""
        self._here = here
        self._disk = disk
        self._journals = journals
        self._fleet = fleet
        self._clock = clock
        self._started_s = clock()
        self._alive: frozenset[str] | None = None
        self._leases: dict[str, tuple[float, float]] = {}  # by node: when it began and ends
        self._looked_at = {here}
        self._troubled: dict[str, Look] = {}  # by node: the last look, where it met problems
        self._mutex = threading.Lock()

    def poll(self, alive: Collection[str]) -> Poll:
        """Say which of the living nodes is to be looked at now; whoever asks has the lease."""
        now_s = self._clock()
        self._close_gone_from_here(alive, now_s)
        with self._mutex:
            self._alive = frozenset(alive)
            self._leases = {n: lease for n, lease in self._leases.items() if n in self._alive}
            self._troubled = {
                node: look
                for node, look in self._troubled.items()
                if node in self._alive or look.left is not None
            }
            for node in sorted(self._alive):
                began_s, ends_s = self._leases.get(node, (now_s, now_s))
                leased = began_s <= now_s < ends_s  # not one from a future the clock has left
                if not leased and self._is_due(node, now_s):
                    self._leases[node] = (now_s, now_s + LEASE_S)
                    return Poll(self._here, node)
        return Poll(self._here, None)

    def _close_gone_from_here(self, alive: Collection[str], now_s: float) -> None:
        """Close replicas of gone nodes that wrote to this disk and left no journal on it."""
        for seen_s, report in self._fleet.reports():
            on_this_disk = self._disk and report.disk == self._disk and report.node not in alive
            if not on_this_disk or not is_silent(seen_s, report, now_s):
                continue
            if not any((self._journals / producer).exists() for producer in report.journals):
                self._fleet.close(report.replica, seen_s)

    def _is_due(self, node: str, now_s: float) -> bool:
        if node not in self._looked_at and abs(now_s - self._started_s) >= SETTLING_S:
            return True
        reports = [(seen_s, r) for seen_s, r in self._fleet.reports() if r.node == node]
        silent_s = [abs(now_s - seen_s) for seen_s, r in reports if is_silent(seen_s, r, now_s)]
        lives = any(not r.closed and is_alive(seen_s, now_s) for seen_s, r in reports)
        return max(silent_s, default=0.0) > (NEIGHBOUR_S if lives else 0.0)

    def looked(self, look: Look) -> None:
        """Note what the holder of a lease has found: all that is not left there is done with."""
        now_s = self._clock()
        with self._mutex:
            began_s, _ = self._leases.get(look.node, (0.0, 0.0))
            pause_s = PROBLEM_PAUSE_S if look.problems else PAUSE_S
            self._leases[look.node] = (began_s, now_s + pause_s)
            before = self._troubled.pop(look.node, None)
            if look.problems:
                self._troubled[look.node] = _joined(before, look)
            else:
                self._looked_at.add(look.node)
        if look.left is None:
            return
        left = set(look.left)
        for seen_s, report in self._fleet.reports():
            if report.node == look.node and seen_s < began_s and left.isdisjoint(report.journals):
                self._fleet.close(report.replica, seen_s)
        self.handed_over(look.handed_over)

    def handed_over(self, producers: Collection[str]) -> None:
        """Note producers whose journals have been handed over, wherever they were found."""
        gone = set(producers)
        for seen_s, report in self._fleet.reports():
            if report.journals and gone.issuperset(report.journals):
                self._fleet.close(report.replica, seen_s)

    def health(self) -> list[NodeHealth]:
        """List the nodes that hold, or may hold, what nobody has handed over yet."""
        now_s = self._clock()
        with self._mutex:
            alive, problems = self._alive, {n: k.problems for n, k in self._troubled.items()}
        if alive is None:  # nobody has asked yet: which nodes live is not known
            return []
        silent: dict[str, list[tuple[float, ReplicaReport]]] = {n: [] for n in problems}
        for seen_s, report in self._fleet.reports():
            if is_silent(seen_s, report, now_s):
                silent.setdefault(report.node, []).append((seen_s, report))
        return [
            NodeHealth(
                node=node,
                alive=node in alive,
                replicas=len(reports),
                silent_s=max((now_s - seen_s for seen_s, _ in reports), default=0.0),
                unacknowledged=sum(
                    c.captured - c.acknowledged for _, r in reports for c in r.captures
                ),
                problems=problems.get(node, ()),
            )
            for node, reports in sorted(silent.items())
        ]


def is_silent(seen_s: float, report: ReplicaReport, now_s: float) -> bool:
    """Whether a replica is taken for dead and its journals may still lie on its node."""
    return bool(report.journals) and not report.closed and not is_alive(seen_s, now_s)


def _joined(before: Look | None, look: Look) -> Look:
    """A look that did not take place does not take back what an earlier one found."""
    if before is None or before.left is None or look.left is not None:
        return look
    problems = tuple(dict.fromkeys((*before.problems, *look.problems)))
    return msgspec.structs.replace(before, problems=problems)

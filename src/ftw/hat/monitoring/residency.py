"""Which sibling groups of a pack are in memory: admitted by a parent's reading, kept for a while, let go when quiet.

The rule of the file: decisions are made from readings and counts alone, with no tensor and no clock, so that the same
readings give the same residents. Groups are the unit: lenses trained against their siblings are comparable only
together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ftw.hat.monitoring.hierarchy import Deployment
from ftw.hat.monitoring.manifest import Priority
from ftw.substrate.errors import ConfigError

RANK: Mapping[Priority, int] = {"critical": 0, "normal": 1, "low": 2}
State = Literal["out", "coming", "in"]


@dataclass(frozen=True, slots=True)
class Group:
    """Siblings that come and go together."""

    places: tuple[int, ...]
    """Their lenses, in bank order."""
    parent: int
    """The lens whose reading asks for them; -1 where there is none."""
    rank: int
    """0 critical, 1 normal, 2 low."""
    stays: bool
    """Whether the deployment reads it from the start: it is loaded first and never let go."""


@dataclass(slots=True)
class Tally:
    """What happened so far, in groups and steps."""

    steps: int = 0
    hits: int = 0
    """A parent asked for its children and they were there."""
    misses: int = 0
    """… and they were not: the reading lacked them."""
    loads: int = 0
    evictions: int = 0
    """Let go for another one."""
    cooled: int = 0
    """Let go after their cooldown."""
    refused: int = 0
    """Asked for, but nothing could go for them."""
    load_ms: list[float] = field(default_factory=list)
    """From the request until the group could be scored, the last thousand."""
    load_steps: list[int] = field(default_factory=list)
    """The same in steps: 0 where no reading came in between."""

    @property
    def hit_rate(self) -> float | None:
        """Share of requests that found their group in memory. None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def landed(self, ms: float, steps: int) -> None:
        """Note one load."""
        self.loads += 1
        self.load_ms[:] = [*self.load_ms[-999:], ms]
        self.load_steps[:] = [*self.load_steps[-999:], steps]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step asks for."""

    load: tuple[int, ...] = ()
    """Groups to fetch, the most wanted first."""
    drop: tuple[int, ...] = ()
    """Groups to let go, before that."""
    lacking: tuple[int, ...] = ()
    """Groups that were asked for and are not there yet."""


class Residency:
    """The state of every group. `tick` once per step; `landed` when a fetched group can be scored."""

    def __init__(
        self, groups: Sequence[Group], room: int, *, admit: float, release: float, cooldown: int, slot_bytes: int = 1
    ) -> None:
        """`room` counts lenses; a parent's probability `admit` asks for its children, below `release` they cool.

        Raises ConfigError where what has to stay does not fit.
        """
        self.groups = tuple(groups)
        self.room = room
        self.tally = Tally()
        self._admit, self._release, self._cooldown = admit, release, cooldown
        self._state: list[State] = ["out"] * len(groups)
        self._quiet = [0] * len(groups)
        self._active = [0] * len(groups)
        self.home = {place: number for number, group in enumerate(groups) for place in group.places}
        """The group of each lens that belongs to one."""
        self._below: list[list[int]] = [[] for _ in groups]
        for number, group in enumerate(groups):
            if group.parent in self.home:
                self._below[self.home[group.parent]].append(number)
        self._loose: set[int] = set()
        """Groups in memory that may go some time."""
        needed = sum(len(group.places) for group in groups if group.stays)
        if needed > room:
            raise ConfigError(
                f"{needed} lenses must always be in memory and take {needed * slot_bytes} bytes; the budget holds "
                f"{room} lenses ({room * slot_bytes} bytes): allow more, or let the manifest always load fewer levels"
            )

    @property
    def free(self) -> int:
        """Lenses that there is room for."""
        return self.room - sum(
            len(group.places) for group, state in zip(self.groups, self._state, strict=True) if state != "out"
        )

    def resident(self, number: int) -> bool:
        """Whether a group can be scored."""
        return self._state[number] == "in"

    def start(self) -> tuple[int, ...]:
        """The groups that stay: they are coming now, shallow ones first."""
        wanted = tuple(number for number, group in enumerate(self.groups) if group.stays)
        for number in wanted:
            self._state[number] = "coming"
        return wanted

    def landed(self, number: int) -> None:
        """A group that was coming can be scored from now on."""
        self._state[number] = "in"
        if not self.groups[number].stays:
            self._loose.add(number)
        self._quiet[number] = 0
        self._active[number] = self.tally.steps

    def failed(self, number: int) -> None:
        """A group that was coming does not come."""
        self._state[number] = "out"

    def tick(self, readings: Mapping[int, float]) -> Plan:
        """Decide one step. `readings`: for each group whose parent was scored, the parent's highest probability."""
        self.tally.steps += 1
        asked = sorted(
            (number for number, p in readings.items() if p >= self._admit),
            key=lambda number: (self.groups[number].rank, -readings[number], number),
        )
        lacking = [number for number in asked if self._state[number] != "in"]
        self.tally.hits += sum(self._state[n] == "in" and not self.groups[n].stays for n in asked)
        self.tally.misses += len(lacking)
        self._age(readings)
        drop = self._cooled()
        load: list[int] = []
        for number in lacking:
            if self._state[number] != "out":
                continue
            if not self._make_room(number, drop):
                self.tally.refused += 1
                continue
            self._state[number] = "coming"
            load.append(number)
        return Plan(tuple(load), tuple(drop), tuple(lacking))

    def _age(self, readings: Mapping[int, float]) -> None:
        for number in self._loose:
            p = readings.get(number, 0.0)
            self._quiet[number] = self._quiet[number] + 1 if p < self._release else 0
            if p >= self._admit:
                self._active[number] = self.tally.steps

    def _cooled(self) -> list[int]:
        """Let go what has been quiet for longer than the cooldown and has nothing in memory below it."""
        gone = []
        for number in sorted(self._loose, reverse=True):  # deeper ones first: groups stand level by level
            if self._quiet[number] > self._cooldown and self._may_go(number):
                self._leave(number)
                self.tally.cooled += 1
                gone.append(number)
        return gone

    def _make_room(self, number: int, drop: list[int]) -> bool:
        """Let go what matters less than a group until it fits; nothing goes if that is not enough."""
        need = len(self.groups[number].places) - self.free
        if need <= 0:
            return True
        rank = self.groups[number].rank
        over = [n for n in self._loose if self._yields(n, rank) and self._may_go(n)]
        over.sort(key=lambda n: (-self.groups[n].rank, -self._quiet[n], self._active[n], n))
        chosen: list[int] = []
        for n in over:
            if need <= 0:
                break
            chosen.append(n)
            need -= len(self.groups[n].places)
        if need > 0:
            return False
        for n in chosen:
            self._leave(n)
            self.tally.evictions += 1
            drop.append(n)
        return True

    def _yields(self, number: int, rank: int) -> bool:
        """Whether a group gives way to one of `rank`: less important, or as important and quiet now."""
        own = self.groups[number].rank
        return own > rank or (own == rank and self._quiet[number] > 0)

    def _leave(self, number: int) -> None:
        self._state[number] = "out"
        self._loose.discard(number)

    def _may_go(self, number: int) -> bool:
        """Whether a group is in memory, need not stay, and nothing that is there or coming hangs on its readings."""
        return number in self._loose and all(self._state[n] == "out" for n in self._below[number])


def groups_of(deployment: Deployment, openable: Iterable[int]) -> tuple[Group, ...]:
    """The sibling groups of what a deployment reads from the start or may open, level by level.

    Lenses that it never reads belong to no group.
    """
    tree, rows = deployment.tree, deployment.rows
    known = set(openable) | deployment.loaded
    by_number: dict[int, list[int]] = {}
    for at in range(len(rows)):
        if at in known and not deployment.forbidden(at):
            by_number.setdefault(tree.groups[at], []).append(at)
    made = [
        Group(
            places=tuple(places),
            parent=tree.parents[places[0]],
            rank=min(RANK[deployment.decisions[at].priority] for at in places),
            stays=any(at in deployment.loaded for at in places),
        )
        for places in by_number.values()
    ]
    return tuple(sorted(made, key=lambda group: (tree.levels[group.places[0]], group.places)))

"""Asks the controllers of all requests of a step, each request's in its order, shared ones once for all.

The rule of the file: a controller that fails takes down the requests that asked it, and no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ftw.substrate.engine_request import Run
from ftw.substrate.errors import UsageError
from ftw.substrate.types import BatchController, Controller, Edit, Site, Step


@dataclass(slots=True)
class Asked:
    """One request's step on its way through that request's controllers."""

    run: Run
    step: Step
    trace: Mapping[Site, Tensor]
    """What the pass read: [row, pos, d_model] per site."""
    row: int
    """This request's row in it."""
    edits: list[Edit] = field(default_factory=list)
    """The answers so far, in order."""
    error: Exception | None = None
    at: int = 0
    """How many of its controllers have answered."""

    @property
    def next(self) -> Controller | None:
        """The controller whose turn it is."""
        return self.run.controllers[self.at][0] if self.at < len(self.run.controllers) else None

    def fail(self, error: Exception) -> None:
        """Stop asking."""
        self.error = error
        self.at = len(self.run.controllers)


def ask(steps: Sequence[Asked]) -> None:
    """Fill in `edits` or `error` of each. A batch controller is called once, when all that share it have reached it."""
    for one in steps:
        _ask_singles(one)
    while waiting := [one for one in steps if one.next is not None]:
        controller = _next_shared(waiting)
        group = [one for one in waiting if one.next is controller]
        _ask_shared(cast(BatchController, controller), group)
        for one in group:
            _ask_singles(one)


def _ask_singles(one: Asked) -> None:
    """Call the controllers up to the next shared one."""
    controllers = one.run.controllers
    while one.at < len(controllers) and not controllers[one.at][1]:
        try:
            one.edits.extend(controllers[one.at][0](one.step))
        except Exception as error:  # noqa: BLE001  # code of others: it is reported to its caller, the rest goes on
            one.fail(error)
            return
        one.at += 1


def _ask_shared(controller: BatchController, group: Sequence[Asked]) -> None:
    try:
        resid = {site: _last_states(group, site) for site in controller.sites}
        answers = controller.many([one.step for one in group], resid)
        if len(answers) != len(group):
            name = type(controller).__name__
            raise UsageError(
                f"{name}.many answered {len(answers)} of {len(group)} steps: one sequence of edits per step"
            )
        for one, edits in zip(group, answers, strict=True):
            one.edits.extend(edits)
            one.at += 1
    except Exception as error:  # noqa: BLE001  # code of others, as above; all that share it asked for it
        for one in group:
            one.fail(error)


def _next_shared(waiting: Sequence[Asked]) -> Controller | None:
    """A shared controller that nobody has yet to reach; where requests order theirs in a ring, the first one's."""
    for one in waiting:
        ahead = one.next
        if all(other.next is ahead or not _will_reach(other, ahead) for other in waiting):
            return ahead
    return waiting[0].next


def _will_reach(one: Asked, controller: Controller | None) -> bool:
    return any(each is controller for each, _ in one.run.controllers[one.at + 1 :])


def _last_states(group: Sequence[Asked], site: Site) -> Float[Tensor, "row d_model"]:
    """The state at each step's last position. No copy when the group is a whole pass in order."""
    trace = group[0].trace
    if all(one.trace is trace for one in group):
        rows = [one.row for one in group]
        states = trace[site][:, -1]
        if rows == list(range(states.shape[0])):
            return states
        return states[torch.tensor(rows, device=states.device)]
    return torch.stack([one.trace[site][one.row, -1] for one in group])

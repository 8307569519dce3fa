"""Every error that ftw raises on purpose. One tree; messages name both sides and the way out.

FtwError
├── UsageError          the request itself is wrong (exit code 2)
│   ├── ConfigError     a setting, spec or file has an unknown key or a bad value
│   ├── SiteError       an address that this model does not have
│   ├── EditError       an edit gave back something else than a residual stream like the one it got
│   ├── PromptTooLong   prompt and new tokens do not fit the context
│   ├── UnknownConcept  a concept that the pack does not hold; nearest names are given
│   ├── ParamsMismatch  a proof is asked of another model, length or k than the one deployed
│   ├── UrlRefused      a callback url that no call may go to
│   └── NotThere        what is asked for does not exist, or not yet
├── ModelError          the model cannot be used
│   ├── ModelNotFound   no such folder or hub id
│   ├── ModelBroken     files are missing, truncated or unreadable
│   ├── NotCausalLM     the model does not predict a next token
│   └── Refused         the identity gate: the anatomy found does not give the model's own logits
├── PackError           a concept or lens pack is malformed
│   └── FingerprintMismatch   an artefact made for one model is used with another
├── ProofError          a proof of compute cannot be made, or is not what it must be
├── RemoteError         a hub, a git server or a shared folder refuses, stalls or is out of reach
├── NumericError        a NaN or infinity where a number must stand
├── Busy                taken now: the same request can succeed later
│   ├── LeaseTimeout    the model was not free in time
│   ├── QueueFull       more work is queued than the queue takes
│   └── AlreadyGenerating     a round is being generated
├── Cancelled           called off by whoever asked, or by a stop
├── MissingExtra        an optional dependency is not installed; the pip line is given
└── StorageError        no space, no permission, unreadable medium
"""

from collections.abc import Mapping
from typing import Any


class FtwError(Exception):
    """The root of the tree. `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(FtwError):
    """The request itself is wrong: repeating it unchanged cannot succeed."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting, spec or file has an unknown key or a bad value."""


class SiteError(UsageError):
    """An address that this model does not have."""


class EditError(UsageError):
    """An edit gave back another shape, dtype or device, wrote into its argument, or names rows that are not there."""


class PromptTooLong(UsageError):
    """The prompt and the new tokens do not fit into the model's context."""


class UnknownConcept(UsageError):
    """A concept that the pack does not hold. The message names the nearest ones."""


class ParamsMismatch(UsageError):
    """A proof is asked of another model, length or k than the one deployed. Both sides are kept for the answer."""

    def __init__(self, requested: Mapping[str, Any], deployed: Mapping[str, Any]) -> None:
        self.requested = dict(requested)
        self.deployed = dict(deployed)
        wrong = [name for name, value in self.requested.items() if self.deployed.get(name) != value]
        told = ", ".join(
            f"{name} is {self.requested[name]!r}, deployed is {self.deployed.get(name)!r}" for name in wrong
        )
        super().__init__(f"this server proves something else: {told}. Ask for what is deployed")


class UrlRefused(UsageError):
    """A callback url that no call may go to. The message gives the reason and never quotes the url."""


class NotThere(UsageError):
    """What is asked for does not exist, or not yet: a round, a nonce, a sealed batch."""


class ModelError(FtwError):
    """The model cannot be used."""


class ModelNotFound(ModelError):
    """No such folder, bundled name or hub id (or the hub is out of reach)."""


class ModelBroken(ModelError):
    """Files of the model are missing, truncated or unreadable."""


class NotCausalLM(ModelError):
    """The model does not predict a next token."""


class Refused(ModelError):
    """The anatomy that was found does not reproduce the model's own logits."""


class PackError(FtwError):
    """A concept or lens pack is malformed."""


class FingerprintMismatch(PackError):
    """An artefact made for one model is used with another."""


class ProofError(FtwError):
    """A proof of compute cannot be made with this model, or what was given is no proof."""


class RemoteError(FtwError):
    """A hub, a git server or a shared folder refuses, stalls or is out of reach. Nothing here has changed."""


class NumericError(FtwError):
    """A NaN or an infinity where a number must stand."""


class Busy(FtwError):
    """Taken now: the same request can succeed later."""


class LeaseTimeout(Busy):
    """The model was not free in time."""


class QueueFull(Busy):
    """More work is queued than the queue takes."""


class AlreadyGenerating(Busy):
    """A round is being generated, and what was asked has to wait for its end."""


class Cancelled(FtwError):
    """Called off by whoever asked for it, or by a stop."""


class MissingExtra(FtwError):
    """An optional dependency is not installed. The message gives the pip line."""


class StorageError(FtwError):
    """No space, no permission, or an unreadable medium."""

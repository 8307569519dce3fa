"""Every error that ftw raises on purpose. One tree; messages name both sides and the way out.

FtwError
├── UsageError          the request itself is wrong (exit code 2)
│   ├── ConfigError     a setting, spec or file has an unknown key or a bad value
│   ├── SiteError       an address that this model does not have
│   ├── EditError       an edit gave back something else than a residual stream like the one it got
│   ├── PromptTooLong   prompt and new tokens do not fit the context
│   └── UnknownConcept  a concept that the pack does not hold; nearest names are given
├── ModelError          the model cannot be used
│   ├── ModelNotFound   no such folder or hub id
│   ├── ModelBroken     files are missing, truncated or unreadable
│   ├── NotCausalLM     the model does not predict a next token
│   └── Refused         the identity gate: the anatomy found does not give the model's own logits
├── PackError           a concept or lens pack is malformed
│   └── FingerprintMismatch   an artefact made for one model is used with another
├── ProofError          a proof of compute cannot be made, or is not what it must be
├── NumericError        a NaN or infinity where a number must stand
├── MissingExtra        an optional dependency is not installed; the pip line is given
└── StorageError        no space, no permission, unreadable medium
"""


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


class NumericError(FtwError):
    """A NaN or an infinity where a number must stand."""


class MissingExtra(FtwError):
    """An optional dependency is not installed. The message gives the pip line."""


class StorageError(FtwError):
    """No space, no permission, or an unreadable medium."""

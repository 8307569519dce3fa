"""Ed25519 signatures (RFC 8032): a key in a file that only its owner can read, and a check that needs no key file.

The rule of the file: a private key that others can read is not used, and a check answers yes or no, whatever it was
given. The only importer of `cryptography`.
"""

import os
import stat
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ftw.substrate.errors import ConfigError, StorageError

PUBLIC_HEX = 64
"""Hex digits of a public key."""
SIGNATURE_HEX = 128
"""Hex digits of a signature."""
LARGEST_KEY_FILE = 16 << 10


class SigningKey:
    """A private key that signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """The key of 32 secret bytes, as RFC 8032 calls them. Raises ConfigError for another number of bytes."""
        if len(seed) != 32:
            raise ConfigError(f"an Ed25519 seed has 32 bytes, this one has {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """The key in this file (PKCS8 PEM); made with mode 0600 where there is none.

        Two processes that make it at once end up with one key. Raises ConfigError for a file that others can read or
        that holds no Ed25519 key, StorageError where it cannot be read or made.
        """
        if not path.exists():
            _create(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """The key in this file. Raises like `load_or_create`; a file that is not there is a StorageError."""
        try:
            with path.open("rb") as stream:
                mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
                text = stream.read(LARGEST_KEY_FILE + 1)
        except OSError as error:
            raise StorageError(f"the signing key {path} cannot be read: {error.strerror or error}") from error
        if mode & 0o077:
            raise ConfigError(
                f"others can use the signing key {path} (mode {mode:04o}, must be 0600): run `chmod 600 {path}`, or "
                "make a new one if somebody may have copied it"
            )
        try:
            key = load_pem_private_key(text, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                f"{path} holds no private key in plain PKCS8 PEM: name the file of an Ed25519 key, or one that is "
                "not there yet, and it is made"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds a {type(key).__name__.lstrip('_')}: signatures here are Ed25519")
        return cls(key)

    @property
    def public(self) -> str:
        """The raw public key, 64 hex digits."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes, 64 bytes. The same bytes always give the same signature."""
        return self._key.sign(data)


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether the owner of this public key (64 hex digits) signed these bytes. Never raises: garbage is a no."""
    if len(public) != PUBLIC_HEX or not public.isascii():
        return False
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, data)
    except (ValueError, InvalidSignature):
        return False
    return True


def _create(path: Path) -> None:
    """A fresh key at `path`, unless another process was faster. Complete under its name, or not there."""
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fresh: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
        fresh = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(key)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(fresh, path)  # unlike a rename, a link never replaces the key that another process made
        except FileExistsError:
            return
    except OSError as error:
        raise StorageError(
            f"the signing key {path} cannot be made: {error.strerror or error}; name another file"
        ) from error
    finally:
        if fresh is not None:
            fresh.unlink(missing_ok=True)

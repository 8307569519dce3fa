"""Signatures are those of RFC 8032, keys lie where only their owner reads them, and garbage is a no."""

import stat
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError, StorageError
from ftw.substrate.signing import SigningKey, verify

# RFC 8032, 7.1, tests 1 to 3: seed, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_signatures_equal_rfc_8032(seed, public, message, signature):
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert verify(public, bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(max_size=50), st.integers(0, 511))
def test_one_changed_bit_breaks_a_signature(data, bit):
    key = SigningKey.from_seed(b"k" * 32)
    signature = bytearray(key.sign(data))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(key.public, data, bytes(signature))
    assert not verify(key.public, data + b"x", key.sign(data))


@pytest.mark.parametrize("public", ["", "zz" * 32, "00" * 31, "٠" * 64, "ff" * 32, " " * 64])
def test_a_key_that_is_none_is_a_no(public):
    assert not verify(public, b"", b"\0" * 64)


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 65])
def test_a_signature_of_another_length_is_a_no(signature):
    assert not verify(VECTORS[0][1], b"", signature)


def test_another_key_is_a_no():
    one, other = SigningKey.from_seed(b"1" * 32), SigningKey.from_seed(b"2" * 32)
    assert not verify(other.public, b"m", one.sign(b"m"))


def test_a_key_is_made_once_for_its_owner_alone_and_found_again(tmp_path):
    path = tmp_path / "deep" / "node.pem"
    made = SigningKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert SigningKey.load_or_create(path).public == made.public
    assert [file.name for file in path.parent.iterdir()] == ["node.pem"]


def test_many_that_make_a_key_at_once_share_one(tmp_path):
    found = []
    start = threading.Barrier(4)

    def make():
        start.wait()
        found.append(SigningKey.load_or_create(tmp_path / "node.pem").public)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
def test_a_key_that_others_can_use_is_refused_with_the_way_out(tmp_path, mode):
    path = tmp_path / "node.pem"
    SigningKey.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}, must be 0600.*chmod 600 {path}"):
        SigningKey.load_or_create(path)


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_an_error(tmp_path, text):
    path = tmp_path / "node.pem"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no private key in plain PKCS8 PEM"):
        SigningKey.load(path)


def test_a_key_of_another_kind_is_an_error(tmp_path):
    path = tmp_path / "node.pem"
    key = generate_private_key(SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"holds a .*: signatures here are Ed25519"):
        SigningKey.load(path)


def test_a_key_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        SigningKey.load(tmp_path / "none.pem")


def test_a_key_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        SigningKey.load_or_create(tmp_path / "file" / "node.pem")


def test_a_seed_of_another_length_is_an_error():
    with pytest.raises(ConfigError, match="has 32 bytes, this one has 3"):
        SigningKey.from_seed(b"abc")

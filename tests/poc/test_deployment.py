"""What is deployed is what is proved: another model, length or k is refused with both sides."""

import pytest

from ftw.poc.deployment import Deployment
from ftw.poc.profiles import DISTANCE_K64
from ftw.substrate.bundled import tiny_net
from ftw.substrate.config import PocSettings
from ftw.substrate.errors import ConfigError, ParamsMismatch, PromptTooLong
from ftw.substrate.model import from_net
from ftw.substrate.reference import tiny
from tests.poc.service import SETTINGS, started


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def deployment(model):
    return Deployment.of(model, SETTINGS)


def test_a_deployment_is_the_model_under_the_settings(model, deployment):
    assert (deployment.seq_len, deployment.k_dim, deployment.rows) == (8, 12, SETTINGS.forward_rows)
    assert (deployment.names, deployment.fingerprint) == (("tiny",), model.fingerprint)


def test_a_profile_brings_its_own_k_unless_the_settings_say_otherwise(model):
    other = Deployment.of(model, PocSettings(profile="distance-k64", k_dim=16, seq_len=8))
    assert (other.profile, other.k_dim) == (DISTANCE_K64, 16)


def test_a_model_goes_by_its_name_and_the_last_part_of_it():
    model = from_net(tiny_net(), name="some/where/Model-1B")
    deployment = Deployment.of(model, SETTINGS)
    assert deployment.names == ("some/where/Model-1B", "Model-1B")
    for name in deployment.names:
        deployment.check(name, 8, 12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("other", 8, 12), "model is 'other', deployed is 'tiny'. Ask for what is deployed"),
        (("tiny", 256, 12), "seq_len is 256, deployed is 8"),
        (("tiny", 8, 64), "k_dim is 64, deployed is 12"),
        (("other", 9, 12), "model is 'other', deployed is 'tiny', seq_len is 9, deployed is 8"),
    ],
)
def test_what_is_not_deployed_is_refused_with_both_sides(deployment, asked, message):
    with pytest.raises(ParamsMismatch, match=message) as refused:
        deployment.check(*asked)
    assert refused.value.requested == dict(zip(("model", "seq_len", "k_dim"), asked, strict=True))
    assert refused.value.deployed == {"model": "tiny", "seq_len": 8, "k_dim": 12}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"seq_len": 10_000}, PromptTooLong, "POC_SEQ_LEN is 10000, and tiny takes"),
        ({"k_dim": 33}, ConfigError, "POC_K_DIM is 33: tiny has 2 to 32 dimensions"),
        ({"k_dim": 1}, ConfigError, "POC_K_DIM is 1"),
        ({"profile": "artefact"}, ConfigError, "there is no proof profile 'artefact'"),
    ],
)
def test_what_the_model_cannot_prove_is_refused_before_it_is_served(model, change, error, message):
    with pytest.raises(error, match=message):
        Deployment.of(model, SETTINGS.model_copy(update=change))


def test_a_profile_that_binds_the_model_gets_its_fingerprint(model, deployment):
    bound = Deployment.of(model, SETTINGS.model_copy(update={"profile": "ftw-1", "k_dim": 12}))
    assert bound.round("block", "key").fingerprint == model.fingerprint
    assert deployment.round("block", "key").fingerprint == ""


def test_a_rounds_key_holds_what_is_deployed_and_who_asks(deployment):
    key = deployment.key(started(url="http://x", stronger_rng=True))
    assert (key.profile, key.fingerprint, key.seq_len, key.k_dim) == ("artifact-k12/1", deployment.fingerprint, 8, 12)
    assert key.rows == deployment.rows
    assert (key.block_hash, key.node_id, key.node_count, key.url, key.stronger_rng) == ("block", 1, 3, "http://x", True)


def test_the_size_of_a_unit_of_work_makes_no_other_round(deployment):
    assert deployment.key(started(batch_size=99)) == deployment.key(started())

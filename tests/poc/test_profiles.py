"""Profiles are data under a name and a version; an unknown one is an error."""

import pytest

from ftw.poc.profiles import ARTIFACT_K12, DISTANCE_K64, FTW_1, PROFILES, profile
from ftw.substrate.errors import ConfigError


def test_a_profile_is_found_by_name_and_by_versioned_name():
    assert profile("artifact-k12") is ARTIFACT_K12
    assert profile("distance-k64/1") is DISTANCE_K64
    assert profile("ftw-1") is profile("ftw-1/1") is FTW_1


def test_no_two_profiles_share_a_name_and_version():
    assert len({one.id for one in PROFILES}) == len(PROFILES)


def test_an_unknown_profile_is_an_error_that_names_the_known_ones():
    with pytest.raises(
        ConfigError, match="no proof profile 'artifact-k13': use one of artifact-k12/1, distance-k64/1, ftw-1/1"
    ):
        profile("artifact-k13")
    with pytest.raises(ConfigError, match="no proof profile 'artifact-k12/2'"):
        profile("artifact-k12/2")

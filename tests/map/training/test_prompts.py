"""Prompts: carriers of the fit and of the measurement never meet, and words are held out by whole synsets."""

from collections import Counter

import pytest

from ftw.map.registry.concept_pack import ConceptPack, bundled_concept_pack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, TrainingHints
from ftw.map.training.prompts import (
    Carriers,
    Prompt,
    Word,
    bundled_carriers,
    prompts_of,
    stand_apart,
    word_folds,
    words_of,
)
from ftw.substrate.errors import ConfigError

WORDS = (
    Word("wolf", "wolf.n.01", "Dog", "noun"),
    Word("grey wolf", "wolf.n.01", "Dog", "noun"),
    Word("fox", "fox.n.01", "Dog", "noun"),
    Word("run", "run.v.01", "Move", "verb"),
)


def carriers(**parts: object) -> Carriers:
    one = {"fit": ["A b", "C d"], "held": ["E f"]}
    plain = {"fit": ["So it is."], "baseline": ["As it was."]}
    return Carriers.read({"noun": one, "verb": one, "plain": plain} | parts, source="test")


def test_bundled_carriers_of_the_fit_and_of_the_measurement_are_apart() -> None:
    for part in (bundled_carriers().noun, bundled_carriers().verb):
        assert not set(part.fit) & set(part.held)
        assert len(part.fit) >= 20
        assert len(part.held) >= 8
    plain = bundled_carriers().plain
    assert not set(plain.fit) & set(plain.baseline)


def test_a_carrier_that_serves_for_both_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="none serves for both parts"):
        carriers(noun={"fit": ["A b"], "held": ["A b"]})


def test_a_carrier_with_blanks_around_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="carriers are trimmed"):
        carriers(noun={"fit": ["A b "], "held": ["E f"]})


def test_the_span_of_a_prompt_is_its_word() -> None:
    prompt = Prompt("They saw the", 1, held=False)
    start, end = prompt.span(WORDS)
    assert prompt.text(WORDS)[start:end] == "grey wolf"
    assert end == len(prompt.text(WORDS))


def test_each_word_is_said_in_as_many_distinct_carriers_as_asked() -> None:
    prompts = prompts_of(WORDS, bundled_carriers(), per_word=5, held_per_word=2, seed=0)
    assert len({(p.carrier, p.word) for p in prompts}) == len(prompts) == 7 * len(WORDS)
    assert Counter((p.word, p.held) for p in prompts) == {
        (w, h): 2 if h else 5 for w in range(4) for h in (True, False)
    }


def test_more_carriers_than_there_are_means_all_of_them() -> None:
    assert len(prompts_of(WORDS, carriers(), per_word=9, held_per_word=9, seed=0)) == 3 * len(WORDS)


def test_verbs_are_said_in_carriers_for_verbs() -> None:
    verbs = {
        p.carrier for p in prompts_of(WORDS, bundled_carriers(), per_word=9, held_per_word=9, seed=0) if p.word == 3
    }
    assert verbs <= {*bundled_carriers().verb.fit, *bundled_carriers().verb.held}


def test_the_same_seed_draws_the_same_prompts() -> None:
    draws = [prompts_of(WORDS, bundled_carriers(), per_word=3, held_per_word=1, seed=s) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_words_of_a_synset_are_in_one_fold() -> None:
    words = words_of(bundled_concept_pack())
    folds: dict[str, set[int]] = {}
    for word, fold in zip(words, word_folds(words, 3, seed=0), strict=True):
        folds.setdefault(word.synset, set()).add(fold)
    assert all(len(found) == 1 for found in folds.values())


def test_a_word_in_two_synsets_is_in_one_fold() -> None:
    words = [Word("bank", f"bank.n.0{i}", home, "noun") for i, home in enumerate(["Shop", "Valley", "Shop"])]
    words += [Word("teller", "bank.n.01", "Shop", "noun")]
    assert len(set(word_folds(words, 3, seed=0))) == 1


def test_every_concept_has_words_in_every_fold() -> None:
    pack = bundled_concept_pack()
    words = words_of(pack)
    folds = word_folds(words, 3, seed=0)
    seen: dict[str, set[int]] = {}
    for word, fold in zip(words, folds, strict=True):
        for term in (word.home, *pack.ancestors(word.home)):
            seen.setdefault(term, set()).add(fold)
    assert all(len(found) == 3 for found in seen.values())
    sizes = Counter(folds)
    assert max(sizes.values()) < 1.1 * min(sizes.values())


def test_a_word_that_shares_a_part_with_a_word_of_another_fold_does_not_stand_apart() -> None:
    assert stand_apart(WORDS, [0, 0, 1, 2]) == [True, True, True, True]
    assert stand_apart(WORDS, [0, 1, 1, 2]) == [False, False, True, True]


def test_more_carriers_per_word_are_the_same_ones_and_further_ones() -> None:
    few, many = (
        {(p.carrier, p.word) for p in prompts_of(WORDS, bundled_carriers(), per_word=n, held_per_word=0, seed=0)}
        for n in (4, 9)
    )
    assert few < many


def test_a_concept_without_member_words_is_named_by_its_label_aliases_and_seed_terms() -> None:
    record = ConceptRecord(
        term="SkilledWorker",
        layer=0,
        definition="a thing",
        aliases=["craftsman"],
        training_hints=TrainingHints(seed_terms=["artisan", "craftsman"]),
    )
    words = words_of(ConceptPack(PackRecord(pack_id="bare", version="1"), [record]))
    assert [word.text for word in words] == ["skilled worker", "craftsman", "artisan"]
    assert {word.synset for word in words} == {"SkilledWorker"}


@pytest.mark.parametrize("text", ["without a place", "{} and {}"])
def test_a_frame_that_does_not_hold_its_place_once_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{\} once"):
        carriers(frames={"definition": {"fit": [text], "held": ["{}: so"]}})

"""Sentences: what a pack says of its concepts becomes prompts, examples are used for what they show and deny."""

import pytest

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord, Relationships, TrainingHints, Wordnet
from ftw.map.training.prompts import Prompt, Word, bundled_carriers
from ftw.map.training.sentences import Corpus, corpus_of, distinct_texts, groups_of, templates_of
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID, Targets
from ftw.substrate.errors import ConfigError

DOG = ConceptRecord(
    term="Dog",
    layer=1,
    parent_concepts=["Animal"],
    definition='a domestic animal that barks; "the dog barked all night"',
    wordnet=Wordnet(pos="n", words={"dog.n.01": ["dog", "hound"], "pup.n.01": ["pup"]}),
    relationships=Relationships(antonyms=["Cat"], part_of=["Pack"], has_part=["Tail"]),
    training_hints=TrainingHints(
        positive_examples=["It wagged and licked my hand.", "Two hounds followed the trail.", "Good boy!", "Sit!"],
        negative_examples=["The hot dog was cold."],
        key_features=["It has four legs."],
        disambiguation="Not the food but the animal",
    ),
)


def pack(*more: ConceptRecord) -> ConceptPack:
    records = [
        ConceptRecord(term="Animal", layer=0, definition="a living thing"),
        ConceptRecord(term="Cat", layer=1, parent_concepts=["Animal"], definition="it purrs"),
        ConceptRecord(term="Tail", layer=0, definition="the end of it"),
        DOG,
        *more,
    ]
    return ConceptPack(PackRecord(pack_id="pets", version="1"), records)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return corpus_of(pack(), bundled_carriers(), per_word=1, held_per_word=1, seed=0)


def of(corpus: Corpus, sort: str, *, home: str = "Dog") -> list[Prompt]:
    return [p for p in corpus.prompts if p.sort == sort and corpus.words[p.word].home == home]


def texts(corpus: Corpus, prompts: list[Prompt]) -> list[str]:
    return [p.text(corpus.words) for p in prompts]


def test_a_definition_stands_before_the_word_once_to_fit_and_once_to_measure(corpus: Corpus) -> None:
    prompts = of(corpus, "definition")
    assert [p.held for p in prompts] == [False, True, False, True]
    assert all("It has four legs" in text for text in texts(corpus, prompts[2:]))
    prompts = prompts[:2]
    for text in texts(corpus, prompts):
        assert "a domestic animal that barks" in text
        assert "all night" not in text
        assert text.endswith(" dog")


def test_relations_name_the_concept_above_the_whole_and_the_opposite(corpus: Corpus) -> None:
    told = " / ".join(texts(corpus, of(corpus, "relation")))
    assert all(name in told for name in ("animal", "pack", "cat"))
    assert any("dog" in text for text in texts(corpus, of(corpus, "relation", home="Tail")))


def test_disambiguation_stands_before_the_word(corpus: Corpus) -> None:
    assert texts(corpus, of(corpus, "disambiguation"))[0].startswith("Not the food but the animal. ")


def test_a_usage_example_of_a_definition_is_cut_behind_the_word(corpus: Corpus) -> None:
    (usage,) = of(corpus, "usage")
    assert usage.text(corpus.words) == "the dog"
    assert corpus.words[usage.word].synset == "dog.n.01"


def test_every_authored_example_is_used(corpus: Corpus) -> None:
    """The published packs hold such examples for a thousand concepts; a trainer that skips them is a known fault."""
    shown = [p for p in of(corpus, "authored") if not p.against]
    assert texts(corpus, shown) == ["It wagged and licked my hand.", "Two hounds", "Good boy!", "Sit!"]
    assert [p.held for p in shown] == [False, False, False, True]
    assert corpus.words[shown[1].word].synset == "dog.n.01"
    assert len({corpus.words[p.word].synset for p in shown}) == 4
    (denied,) = [p for p in of(corpus, "authored") if p.against]
    assert denied.text(corpus.words) == "The hot dog was cold."


def test_a_denied_example_is_a_negative_of_its_concept_and_below_and_says_nothing_else(corpus: Corpus) -> None:
    puppy = ConceptRecord(term="Puppy", layer=2, parent_concepts=["Dog"], definition="a young one")
    targets = Targets.of(pack(puppy))
    word = Word("The hot dog", "x", "Dog", "noun")
    home = targets.home_of([Prompt("", 0, False, against=True), Prompt("", 0, False)], [word])
    denied, shown = targets.labels(home)
    label = dict(zip(targets.terms, denied.tolist(), strict=True))
    assert label == {"Animal": UNSAID, "Tail": UNSAID, "Cat": UNSAID, "Dog": NEGATIVE, "Puppy": NEGATIVE}
    assert int(shown[targets.homes["Dog"]]) == POSITIVE


def test_the_span_of_a_prompt_is_its_end(corpus: Corpus) -> None:
    for prompt in corpus.prompts:
        start, end = prompt.span(corpus.words)
        text = prompt.text(corpus.words)
        assert end == len(text)
        assert text[start:] == corpus.words[prompt.word].text


def test_templates_of_the_fit_and_of_the_measurement_are_apart(corpus: Corpus) -> None:
    number = templates_of(corpus.prompts)
    fit = {at for at, p in zip(number, corpus.prompts, strict=True) if not p.held}
    held = {at for at, p in zip(number, corpus.prompts, strict=True) if p.held}
    assert not fit & held


def test_one_synset_has_one_group_however_many_prompts_there_are(corpus: Corpus) -> None:
    every = groups_of(corpus.prompts, corpus.words)
    some = groups_of(corpus.prompts[3:9], corpus.words)
    assert some == every[3:9]
    assert len(set(every)) <= len({word.synset for word in corpus.words})


def test_a_text_that_two_prompts_share_is_run_once() -> None:
    words = [Word("bank", "bank.n.01", "Shop", "noun"), Word("bank", "bank.n.02", "Valley", "noun")]
    prompts = [Prompt("The", 0, False), Prompt("The", 1, False), Prompt("A", 0, False)]
    assert list(distinct_texts(prompts, words)) == [("The", "bank"), ("A", "bank")]


def test_one_concept_alone_cannot_be_told_apart() -> None:
    alone = ConceptPack(PackRecord(pack_id="one", version="1"), [ConceptRecord(term="A", layer=0, definition="a")])
    with pytest.raises(ConfigError, match="one has one concept: lenses are told apart from each other"):
        corpus_of(alone, bundled_carriers(), per_word=1, held_per_word=1, seed=0)

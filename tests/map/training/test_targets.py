"""Labels: positive upwards, unsaid downwards, negative elsewhere."""

import torch

from ftw.map.registry.concept_pack import ConceptPack
from ftw.map.registry.concept_record import ConceptRecord, PackRecord
from ftw.map.training.prompts import Prompt, Word
from ftw.map.training.targets import NEGATIVE, POSITIVE, UNSAID, Targets


def pack() -> ConceptPack:
    tree = {"Animal": None, "Bird": "Animal", "Owl": "Bird", "Dog": "Animal", "Food": None}
    level = {"Animal": 0, "Bird": 1, "Owl": 2, "Dog": 1, "Food": 0}
    records = [
        ConceptRecord(term=t, layer=level[t], parent_concepts=[p] if p else [], definition=f"a {t}")
        for t, p in tree.items()
    ]
    return ConceptPack(PackRecord(pack_id="p", version="1"), records)


def test_lenses_stand_level_by_level_with_siblings_side_by_side() -> None:
    assert Targets.of(pack()).terms == ("Animal", "Food", "Bird", "Dog", "Owl")


def test_a_word_is_a_positive_of_its_concept_and_of_all_above_and_says_nothing_of_those_below() -> None:
    targets = Targets.of(pack())
    home = targets.home_of([Prompt("The", 0, held=False)], [Word("hen", "hen.n.01", "Bird", "noun")])
    labels = dict(zip(targets.terms, targets.labels(home)[0].tolist(), strict=True))
    assert labels == {"Animal": POSITIVE, "Bird": POSITIVE, "Owl": UNSAID, "Dog": NEGATIVE, "Food": NEGATIVE}


def test_plain_text_is_a_negative_of_every_lens() -> None:
    targets = Targets.of(pack())
    assert bool((targets.labels(targets.plain(3)) == NEGATIVE).all())


def test_counts_agree_with_the_labels() -> None:
    targets = Targets.of(pack())
    home = torch.cat([torch.tensor([0, 2, 2, 4, 1]), targets.plain(2)])
    positives, negatives = targets.counts(home)
    labels = targets.labels(home)
    assert positives.tolist() == (labels == POSITIVE).sum(0).tolist()
    assert negatives.tolist() == (labels == NEGATIVE).sum(0).tolist()


def test_every_lens_stands_in_one_group_of_siblings() -> None:
    targets = Targets.of(pack())
    named = [[targets.terms[lens] for lens in group] for group in targets.siblings]
    assert named == [["Animal", "Food"], ["Bird", "Dog"], ["Owl"]]
    assert targets.group_of.tolist() == [0, 0, 1, 1, 2]

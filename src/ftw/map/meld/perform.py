"""What a meld does to a draft: candidates become records, operations change the tree.

The rule of the file: `obstacles` says in words why something cannot be done, `perform` does what has none. Nothing here
asks whether it should be done: that is `validate`.
"""

from collections.abc import Iterable, Sequence

from ftw.map.meld.draft import Draft
from ftw.map.meld.operations import Deprecate, Merge, Move, NewConcept, Operation, Part, Split, touched
from ftw.map.meld.request import Candidate
from ftw.map.registry.concept_record import (
    ConceptRecord,
    Relationships,
    SafetyTags,
    TrainingHints,
    Wordnet,
)

RISKS = ("low", "medium", "high", "critical")


def record_of(candidate: Candidate, source: str, parents: Sequence[str], attached: Sequence[str] = ()) -> ConceptRecord:
    """The record of a candidate of the meld `source`, on level 0 until the draft is finished.

    Of several opposites the first is kept as one, of several `parents` the first; the others, and what it is `attached`
    to, are related.
    """
    relations = candidate.relationships
    related = [*relations.related, *relations.opposite[1:], *parents[1:], *attached]
    tags = candidate.safety_tags
    mapping = candidate.simplex_mapping
    return ConceptRecord.model_validate(
        {
            "term": candidate.term,
            "role": candidate.role,
            "layer": 0,
            "domain": candidate.domain,
            "definition": candidate.definition.strip() or candidate.term,  # an empty one was found to be an error
            "definition_source": candidate.definition_source or f"meld {source}",
            "aliases": candidate.aliases,
            "wordnet": candidate.wordnet,
            "relationships": relations.model_dump(exclude={"related", "opposite"})
            | {
                "related": [term for term in dict.fromkeys(related) if term not in parents[:1]],
                "opposite": next(iter(relations.opposite), None),
            },
            "safety_tags": {
                "risk_level": "low" if tags.risk_level == "none" else tags.risk_level,
                "impacts": tags.impacts,
                "treaty_relevant": tags.treaty_relevant,
                "harness_relevant": tags.harness_relevant,
            },
            "training_hints": candidate.training_hints.model_dump(exclude={"discovery_context"}),
            "simplex_mapping": None if mapping is None else mapping.model_dump(mode="json", exclude_none=True),
            "meld_source": source,
        }
    )


def obstacles(draft: Draft, operation: Operation) -> list[str]:
    """Why an operation cannot be performed on the draft as it stands; nothing where it can."""
    names = [*(() if isinstance(operation, Merge) else touched(operation))]
    absent = [f"{term} is not in the pack" for term in dict.fromkeys(names) if term not in draft]
    if absent:
        return absent
    match operation:
        case Split():
            return _cannot_split(draft, operation)
        case Merge():
            return _cannot_merge(draft, operation)
        case Move():
            return _cannot_move(draft, operation)
        case Deprecate():
            return _cannot_deprecate(draft, operation)


def perform(draft: Draft, operation: Operation, source: str) -> None:
    """Do an operation without obstacles. `source` is the meld that asks for it."""
    match operation:
        case Split():
            _split(draft, operation, source)
        case Merge():
            _merge(draft, operation, source)
        case Move():
            _move(draft, operation)
        case Deprecate():
            _deprecate(draft, operation)


def _cannot_split(draft: Draft, split: Split) -> list[str]:
    if len(split.split_into) < 2:
        hint = "; bucket_suggestions are no definitions yet" if split.bucket_suggestions else ""
        return [f"split_into names {len(split.split_into)} concepts: a split makes two or more{hint}"]
    terms = [part.term for part in split.split_into]
    out = [f"{term} is in the pack already" for term in terms if term in draft]
    out += [f"split_into names {term} twice" for term in sorted({term for term in terms if terms.count(term) > 1})]
    children = draft.children(split.source_concept)
    for child, part in split.child_assignment.items():
        if child not in children:
            out.append(f"child_assignment names {child}, which is no child of {split.source_concept}")
        if part not in terms:
            out.append(f"child_assignment sends {child} to {part}, which split_into does not name")
    left = [child for child in children if child not in split.child_assignment]
    if split.source_disposition == "delete" and left:
        out.append(f"{split.source_concept} goes, but child_assignment leaves {', '.join(left)} without a parent")
    return out


def _cannot_merge(draft: Draft, merge: Merge) -> list[str]:
    sources = list(dict.fromkeys(merge.source_concepts))
    out = [f"{term} is not in the pack" for term in sources if term not in draft]
    if len(sources) < 2:
        out.append(f"source_concepts names only {sources[0]}: a merge joins two or more")
    is_new = merge.target_concept not in sources
    if is_new and merge.target_concept in draft:
        out.append(f"{merge.target_concept} is in the pack and is no source: name it among source_concepts")
    if is_new and merge.target_definition is None:
        out.append(f"{merge.target_concept} is new: give its target_definition")
    if merge.target_definition is not None and merge.target_definition.term != merge.target_concept:
        out.append(f"target_definition is of {merge.target_definition.term}, target_concept is {merge.target_concept}")
    if out:
        return out
    children = [f"{child} of {term}" for term in sources for child in draft.children(term) if child not in sources]
    if merge.child_disposition == "require_manual" and children:
        out.append(f"child_disposition is require_manual, but there is {', '.join(children)}: move it first")
    return out


def _cannot_move(draft: Draft, move: Move) -> list[str]:
    out = []
    parent = draft.parents[move.concept]
    if parent != move.from_parent:
        out.append(f"from_parent is {move.from_parent}, but {move.concept} stands under {parent or 'nothing'}")
    if move.to_parent == parent:
        out.append(f"{move.concept} stands under {parent} already")
    if move.to_parent == move.concept or move.concept in draft.ancestors(move.to_parent):
        out.append(f"to_parent {move.to_parent} is {move.concept} itself or stands below it: that makes a cycle")
    return out


def _cannot_deprecate(draft: Draft, deprecate: Deprecate) -> list[str]:
    term, to = deprecate.target_concept, deprecate.reassign_children_to
    children = draft.children(term)
    if deprecate.child_disposition == "orphan_check" and children:
        return [f"{term} has the children {', '.join(children)}: reassign them or deprecate them with it"]
    if deprecate.child_disposition != "reassign":
        return []
    if not to:
        return ["child_disposition is reassign: name reassign_children_to"]
    if to == term or term in draft.ancestors(to):
        return [f"reassign_children_to {to} is {term} itself or stands below it: that makes a cycle"]
    return []


def _split(draft: Draft, split: Split, source: str) -> None:
    old = draft.records[split.source_concept]
    kept = split.source_disposition == "keep_as_parent"
    default = old.term if kept else draft.parents[old.term]
    for part in split.split_into:
        draft.put(_part_record(part, old, source), next(iter(part.parent_concepts), default))
    for child, part_term in split.child_assignment.items():
        draft.move(child, part_term)
    if split.source_disposition == "delete":
        draft.remove(old.term, instead=tuple(part.term for part in split.split_into))
        return
    gone = {synset for part in split.split_into for synset in (*part.synsets, *part.wordnet.synsets)}
    draft.change(old.term, wordnet=_without(old.wordnet, gone).model_dump())
    if split.source_disposition == "deprecate":
        draft.change(old.term, deprecated=split.deprecation.model_dump())


def _part_record(part: Part, old: ConceptRecord, source: str) -> ConceptRecord:
    """The record of a part: its own words, what it leaves out from the concept that it comes from."""
    return _new_record(part, [old], source).model_copy(
        update={"definition": part.meaning, "wordnet": _part_words(part, old)}
    )


def _part_words(part: Part, old: ConceptRecord) -> Wordnet:
    if part.wordnet.synsets or part.wordnet.lemmas:
        return part.wordnet
    told = {each.id: each.all_lemmas or [each.lemma] for each in part.synsets_detail}
    words = {synset: old.wordnet.words.get(synset) or told.get(synset, []) for synset in part.synsets}
    words = {synset: [lemma.replace("_", " ") for lemma in lemmas if lemma] for synset, lemmas in words.items()}
    canonical = part.canonical
    return Wordnet(
        synsets=part.synsets,
        canonical_synset=canonical,
        lemmas=_once(lemma for lemmas in words.values() for lemma in lemmas),
        pos=next((each.pos for each in part.synsets_detail if each.id == canonical), old.wordnet.pos),
        words={synset: lemmas for synset, lemmas in words.items() if lemmas},
    )


def _without(old: Wordnet, gone: set[str]) -> Wordnet:
    """The words of a concept without those of some synsets; what has no synset stays."""
    words = {synset: lemmas for synset, lemmas in old.words.items() if synset not in gone}
    left = {lemma for lemmas in words.values() for lemma in lemmas}
    moved = {lemma for synset in gone for lemma in old.words.get(synset, [])} - left
    return old.model_copy(
        update={
            "synsets": [synset for synset in old.synsets if synset not in gone],
            "canonical_synset": "" if old.canonical_synset in gone else old.canonical_synset,
            "lemmas": [lemma for lemma in old.lemmas if lemma not in moved],
            "words": words,
        }
    )


def _merge(draft: Draft, merge: Merge, source: str) -> None:
    sources = list(dict.fromkeys(merge.source_concepts))
    target = merge.target_concept
    parent = _merged_parent(draft, merge, sources)
    olds = [draft.records[term] for term in sources]
    given = merge.target_definition
    if given is None:
        given = NewConcept(term=target, definition=draft.records[target].definition)
        first = draft.records[target]
        olds = [first, *(old for old in olds if old.term != target)]
    children = [child for term in sources for child in draft.children(term) if child not in sources]
    draft.put(_new_record(given, olds, source), parent)
    for child in children:
        draft.move(child, target)
    for term in sources:
        if term != target:
            draft.remove(term, instead=(target,))


def _merged_parent(draft: Draft, merge: Merge, sources: Sequence[str]) -> str | None:
    """The parent of what a merge makes: the named one, else that of the highest source on the target's own branch."""
    named = merge.target_definition.parent_concepts if merge.target_definition else []
    if named and named[0] not in sources:
        return named[0]
    start = merge.target_concept if merge.target_concept in sources else sources[0]
    highest = [term for term in [start, *draft.ancestors(start)] if term in sources][-1]
    return draft.parents[highest]


def _new_record(new: NewConcept, olds: Sequence[ConceptRecord], source: str) -> ConceptRecord:
    """A record from what an operation says and the concepts that it comes from. What is not said is theirs, joined."""
    first = olds[0]
    is_one = len(olds) == 1
    names = [old.term for old in olds if old.term != new.term]
    return first.model_copy(
        update={
            "term": new.term,
            "role": new.role,
            "domain": new.domain or first.domain,
            "definition": new.definition or first.definition,
            "definition_source": new.definition_source or (first.definition_source if is_one else f"meld {source}"),
            "aliases": new.aliases or ([] if is_one else _once([*first.aliases, *names])),
            "wordnet": new.wordnet if new.wordnet != Wordnet() or is_one else _joined_words(olds),
            "relationships": Relationships() if is_one else _joined_relations(olds),
            "safety_tags": _strictest([old.safety_tags for old in olds]),
            "training_hints": _hints(new.training_hints, olds),
            "deprecated": None,
            "meld_source": source,
        }
    )


def _hints(given: TrainingHints, olds: Sequence[ConceptRecord]) -> TrainingHints:
    """The given examples; for a merge without any, all of the sources, save negatives that are positive in another."""
    if len(olds) == 1 or given.positive_examples or given.negative_examples:
        return given
    hints = [old.training_hints for old in olds]
    positive = _once(text for each in hints for text in each.positive_examples)
    negative = _once(text for each in hints for text in each.negative_examples if text not in positive)
    return TrainingHints(
        positive_examples=positive,
        negative_examples=negative,
        disambiguation=given.disambiguation,
        seed_terms=_once(text for each in hints for text in each.seed_terms),
        key_features=given.key_features or _once(text for each in hints for text in each.key_features),
        confusable_with=_once(text for each in hints for text in each.confusable_with),
    )


def _joined_words(olds: Sequence[ConceptRecord]) -> Wordnet:
    words: dict[str, list[str]] = {}
    for old in olds:
        for synset, lemmas in old.wordnet.words.items():
            words[synset] = _once([*words.get(synset, []), *lemmas])
    return olds[0].wordnet.model_copy(
        update={
            "synsets": _once(synset for old in olds for synset in old.wordnet.synsets),
            "lemmas": _once(lemma for old in olds for lemma in old.wordnet.lemmas),
            "words": words,
        }
    )


def _joined_relations(olds: Sequence[ConceptRecord]) -> Relationships:
    first, own = olds[0].relationships, {old.term for old in olds}
    lists = {
        name: [term for term in _once(t for old in olds for t in getattr(old.relationships, name)) if term not in own]
        for name in ("related", "antonyms", "has_part", "part_of")
    }
    return first.model_copy(update=lists)


def _strictest(tags: Sequence[SafetyTags]) -> SafetyTags:
    """The tags of several concepts in one, on the safe side."""
    return SafetyTags(
        risk_level=max((each.risk_level for each in tags), key=RISKS.index),
        impacts=_once(impact for each in tags for impact in each.impacts),
        treaty_relevant=any(each.treaty_relevant for each in tags),
        harness_relevant=any(each.harness_relevant for each in tags),
    )


def _move(draft: Draft, move: Move) -> None:
    old = draft.records[move.concept].domain
    draft.move(move.concept, move.to_parent)
    if not move.new_domain:
        return
    below = [term for term in draft.records if move.concept in draft.ancestors(term)]
    for term in [move.concept, *below]:
        if draft.records[term].domain == old:
            draft.change(term, domain=move.new_domain)


def _deprecate(draft: Draft, deprecate: Deprecate) -> None:
    term = deprecate.target_concept
    marked = [term]
    if deprecate.child_disposition == "cascade_deprecate":
        marked += [each for each in draft.records if term in draft.ancestors(each)]
    for child in draft.children(term) if deprecate.child_disposition == "reassign" else ():
        draft.move(child, deprecate.reassign_children_to)
    for each in marked:
        draft.change(each, deprecated=deprecate.deprecation.model_dump())


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))

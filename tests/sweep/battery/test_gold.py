"""Gold alignment: the answer's ids continue the ids that the model reads, whatever kind of tokenizer it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from ftw.substrate.errors import ConfigError, PromptTooLong, UsageError
from ftw.substrate.model import Model, from_net
from ftw.substrate.reference import tiny
from ftw.sweep.battery import Aligned, Prompt, align, align_all
from tests.sweep.battery import spellings

ASKED = "The capital of Germany is called"


@pytest.fixture(scope="module", params=spellings.KINDS)
def model(request: pytest.FixtureRequest) -> Model:
    return spellings.KINDS[request.param]()


@pytest.fixture(scope="module")
def bytewise() -> Model:
    return spellings.byte_level(begins=True)


def prompt(text: str, answer: str | None = "Berlin", **more: object) -> Prompt:
    kind = "fact" if answer is not None else "probe"
    return Prompt("p", text, answer, kind=kind, where="b.toml", **more)  # type: ignore[arg-type]


def written(model: Model, ids: tuple[int, ...]) -> str:
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()  # type: ignore[union-attr]


def test_prompt_and_answer_together_spell_the_sentence(model: Model) -> None:
    gold = align(prompt(ASKED), model)
    assert written(model, gold.prompt_ids + gold.ids).lower() == f"{ASKED} Berlin".lower()


def test_with_every_kind_the_prompts_ids_are_a_true_prefix_of_the_sentences(model: Model) -> None:
    gold = align(prompt(ASKED), model)
    whole = tuple(model.encode(f"{ASKED} Berlin"))
    assert gold.how == "space"
    assert whole[: len(gold.prompt_ids) + len(gold.ids)] == gold.prompt_ids + gold.ids


def test_the_answers_own_sort_of_blank_belongs_to_its_first_piece(model: Model) -> None:
    gold = align(prompt(ASKED), model)
    assert gold.pieces[0].startswith(" ")
    assert "".join(gold.pieces).strip().lower() == "berlin"


def test_what_a_tokenizer_begins_a_text_with_stays_and_what_it_closes_one_with_goes() -> None:
    gold = align(prompt(ASKED), spellings.wordpiece())
    assert gold.prompt_ids[0] == 1
    assert 2 not in gold.prompt_ids + gold.ids


def test_without_bos_no_id_stands_before_the_text() -> None:
    plain, begun = spellings.byte_level(), spellings.byte_level(begins=True)
    assert align(prompt(ASKED), begun).prompt_ids == (0, *align(prompt(ASKED), plain).prompt_ids)
    assert align(prompt(ASKED), begun).ids == align(prompt(ASKED), plain).ids


def test_the_ids_read_are_those_that_the_model_encodes() -> None:
    model = tiny()
    (found,) = align_all([prompt("a storm", "b")], model)
    assert found.ids == tuple(model.encode("a storm"))
    assert found.gold is not None
    assert found.gold.prompt_ids == found.ids


def test_an_answer_of_one_token_is_single_and_one_of_more_is_not(bytewise: Model) -> None:
    one, more = align(prompt(ASKED), bytewise), align(prompt(ASKED, "Bielefeld"), bytewise)
    assert one.is_single
    assert one.ids == (one.first_id,)
    assert not more.is_single
    assert more.first_id == more.ids[0]


def test_the_last_positions_of_the_forced_ids_predict_the_answer_one_by_one(bytewise: Model) -> None:
    gold = align(prompt(ASKED, "Bielefeld"), bytewise)
    n = len(gold.ids)
    assert gold.forced_ids[-n] == gold.prompt_ids[-1]
    assert gold.forced_ids[len(gold.prompt_ids) :] == gold.ids[:-1]


def test_a_text_that_ends_in_a_blank_is_not_matched_by_length(bytewise: Model) -> None:
    """`is called ` ends in a blank token that the sentence as a whole does not have: same length, other ids."""
    gold = align(prompt(f"{ASKED} "), bytewise)
    whole = tuple(bytewise.encode(f"{ASKED} Berlin"))
    assert whole[: len(gold.prompt_ids)] != gold.prompt_ids
    assert gold.how == "split"
    assert written(bytewise, gold.prompt_ids + gold.ids) == f"{ASKED} Berlin"
    assert not gold.pieces[0].startswith(" ")


def test_a_sentencepiece_text_that_ends_in_a_blank_gets_one_blank_only() -> None:
    model = spellings.sentencepiece()
    gold = align(prompt(f"{ASKED} "), model)
    assert written(model, gold.prompt_ids + gold.ids) == f"{ASKED} Berlin"


def test_a_merge_across_the_prompts_end_is_seen(bytewise: Model) -> None:
    """`Berl` + `in` is one token in the sentence; the model has read `Berl`."""
    gold = align(prompt(f"{ASKED} Berl", "in"), bytewise)
    whole = tuple(bytewise.encode(f"{ASKED} Berlin"))
    assert whole[: len(gold.prompt_ids)] != gold.prompt_ids
    assert gold.how == "space"  # a word of its own continues these ids; nothing else does


@pytest.mark.parametrize(
    ("text", "answer", "how"),
    [
        ("日本の首都は、", "東京", "joined"),
        ("日本の首都は", "東京", "split"),  # the sentence has a token that holds both
        ('The capital is called "', "Berlin", "joined"),
        ("The capital (", "Berlin", "joined"),
        ("The capital of Germany", ", Berlin", "joined"),
        ("What is it?<|said|>", "Berlin", "joined"),
        ("The capital:", "Berlin", "space"),
        ('The "capital"', "Berlin", "space"),
    ],
)
def test_a_blank_stands_where_a_writer_would_put_one(bytewise: Model, text: str, answer: str, how: str) -> None:
    gold = align(prompt(text, answer), bytewise)
    assert gold.how == how
    assert gold.pieces[0].startswith(" ") == (how == "space")


def test_aliases_and_the_controls_answer_are_aligned_too(bytewise: Model) -> None:
    (found,) = align_all([prompt(ASKED, aliases=("Bonn", "Berlin-Mitte"), control_answer="Paris")], bytewise)
    assert found.gold is not None
    assert [alias.answer for alias in found.aliases] == ["Bonn", "Berlin-Mitte"]
    assert found.control == align(prompt(ASKED, "Paris"), bytewise)
    assert found.answer_ids[0] == found.gold.first_id
    assert len(found.answer_ids) == len(set(found.answer_ids)) == 2  # Berlin-Mitte begins as Berlin does
    assert found.is_told_apart


def test_answers_that_begin_alike_are_not_told_apart(bytewise: Model) -> None:
    (found,) = align_all([prompt("It is in", "New York", control_answer="New Delhi")], bytewise)
    assert not found.is_told_apart


def test_a_probe_is_read_and_has_no_gold(bytewise: Model) -> None:
    (found,) = align_all([prompt(ASKED, None)], bytewise)
    assert found == Aligned(prompt(ASKED, None), tuple(bytewise.encode(ASKED)), None)
    assert found.answer_ids == ()
    with pytest.raises(ConfigError, match=r"b\.toml: prompt p: a probe has no answer to align"):
        align(prompt(ASKED, None), bytewise)


def test_a_first_piece_that_is_only_a_blank_is_said(bytewise: Model) -> None:
    model = tiny()  # a token per byte
    assert align(prompt("It is", "x"), model).first_is_blank
    assert not align(prompt(ASKED), bytewise).first_is_blank


@given(
    text=st.text(alphabet='abcBerlin. ,"(日は', min_size=1, max_size=12).filter(lambda t: t.strip() != ""),
    answer=st.text(alphabet="Berlinxyz東é", min_size=1, max_size=6),
)
def test_whatever_the_texts_the_answers_tokens_spell_it_after_the_prompts_own(text: str, answer: str) -> None:
    model = SPELLER
    gold = align(prompt(text, answer), model)
    spelled = model.tokenizer.decode(list(gold.prompt_ids[1:] + gold.ids))  # type: ignore[union-attr]
    assert spelled in (text + answer, f"{text} {answer}")
    assert "".join(gold.pieces).strip() == answer
    assert gold.prompt_ids == tuple(model.encode(text))


SPELLER = spellings.byte_level(begins=True)


def test_an_answer_that_tokenises_to_nothing_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"b\.toml: prompt p: the answer '\\x01' tokenises to nothing: reword"):
        align(prompt(ASKED, "\x01"), spellings.wordpiece())  # its normaliser removes control characters


def test_a_text_that_tokenises_to_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"prompt p: the text '\\x01' tokenises to nothing"):
        align(prompt("\x01"), spellings.wordpiece())


def test_an_answer_that_the_tokenizer_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigError, match="speller's tokenizer has no token for part of the answer 'Ωmega'"):
        align(prompt(ASKED, "Ωmega"), spellings.sentencepiece())


def test_an_answer_that_no_tokens_after_the_prompts_own_spell_is_an_error() -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "ab": 3, "a b": 4}, unk_token="<unk>"))
    model = spellings.wrapped(core, unk_token="<unk>")  # a token for each whole text
    with pytest.raises(ConfigError, match="no tokens after the prompt's own spell 'b' with speller's tokenizer"):
        align(prompt("a", "b"), model)


@pytest.mark.parametrize(
    ("length", "answer", "what"),
    [(300, "b", "the prompt takes"), (253, "bcd", "prompt and answer 'bcd' take")],
)
def test_a_prompt_beyond_the_context_is_an_error_with_both_sizes(length: int, answer: str, what: str) -> None:
    with pytest.raises(PromptTooLong, match=rf"b\.toml: prompt p: {what} \d+ tokens: tiny holds 256"):
        align(prompt("a" * length, answer), tiny())


def test_a_model_without_a_tokenizer_is_an_error() -> None:
    with pytest.raises(UsageError, match="bare has no tokenizer: a battery is text"):
        align(prompt(ASKED), from_net(tiny().net, None, name="bare"))

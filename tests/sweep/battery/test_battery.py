"""Batteries from files: what stands in them comes out as prompts, and nothing unknown is passed over."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftw.substrate.errors import ConfigError, StorageError
from ftw.sweep.battery import Battery, Fact, Prompt, Relation, Template, bundled

HEAD = '[battery]\nname = "own"\nversion = "2"\n'
CAPITALS = """
[[relations]]
name = "capital"
controls = "next"
[[relations.templates]]
id = "called"
text = "The capital of {subject} is called simply"
variants.no_filler = "The capital of {subject} is called"
[[relations.templates]]
id = "german"
language = "de"
text = "Die Hauptstadt von {subject} heißt"
[[relations.facts]]
subject = "Germany"
answer = "Berlin"
aliases = ["Berlin-Mitte"]
languages.de = { subject = "Deutschland", answer = "Berlin" }
[[relations.facts]]
subject = "Italy"
answer = "Rome"
languages.de = { subject = "Italien", answer = "Rom", aliases = ["Roma"] }
"""


def read(folder: Path, text: str, name: str = "own.toml") -> Battery:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return Battery.read(file)


@pytest.fixture
def capitals(tmp_path: Path) -> Battery:
    return read(tmp_path, HEAD + CAPITALS)


def one(battery: Battery, key: str) -> Prompt:
    (found,) = [each for each in battery.prompts() if each.id == key]
    return found


def test_every_fact_meets_every_template_in_every_variant_and_its_control(capitals: Battery) -> None:
    assert [each.id for each in capitals.prompts()] == [
        f"capital/{fact}/{rest}"
        for fact in ("Germany→Berlin", "Italy→Rome")
        for rest in ("called/orig", "called/no_filler", "called/control", "german/orig", "german/control")
    ]


def test_a_fact_asks_for_its_answer_and_knows_which_one_must_not_win(capitals: Battery) -> None:
    found = one(capitals, "capital/Germany→Berlin/called/no_filler")
    assert found.text == "The capital of Germany is called"
    assert found.gold == ("Berlin", "Berlin-Mitte")
    assert found.control_answer == "Rome"
    assert (found.kind, found.variant, found.template) == ("fact", "no_filler", "called")
    assert (found.fact_id, found.fact_index, found.relation) == ("Germany→Berlin", 0, "capital")


def test_a_control_asks_about_the_other_subject_and_the_facts_answer_must_not_win(capitals: Battery) -> None:
    found = one(capitals, "capital/Germany→Berlin/called/control")
    assert found.text == "The capital of Italy is called simply"
    assert (found.answer, found.control_answer) == ("Rome", "Berlin")
    assert (found.kind, found.variant, found.fact_id) == ("control", "orig", "Germany→Berlin")


def test_a_template_in_another_language_takes_the_facts_wording_in_it(capitals: Battery) -> None:
    found = one(capitals, "capital/Italy→Rome/german/orig")
    assert found.text == "Die Hauptstadt von Italien heißt"
    assert found.gold == ("Rom", "Roma")
    assert (found.control_answer, found.language) == ("Berlin", "de")


def test_the_place_of_a_prompt_is_told(capitals: Battery) -> None:
    assert one(capitals, "capital/Italy→Rome/german/orig").place.endswith(
        "own.toml: prompt capital/Italy→Rome/german/orig"
    )


def test_a_named_control_goes_before_the_relations_rule(tmp_path: Path) -> None:
    facts = "".join(f'[[relations.facts]]\nsubject = "{s}"\nanswer = "{s.lower()}"\n' for s in "ABC")
    text = HEAD + '[[relations]]\nname = "r"\ntemplates = [{ id = "t", text = "{subject} is" }]\n'
    plain = read(tmp_path, text + facts)
    assert {each.control_answer for each in plain.prompts()} == {None}
    named = read(tmp_path, text + facts + 'control = "A"\n')
    assert [each.control_answer for each in named.prompts()] == [None, None, "a", "c"]


def test_the_next_fact_with_another_answer_is_the_control() -> None:
    facts = tuple(Fact(subject=s, answer=a) for s, a in (("a", "x"), ("b", "x"), ("c", "y")))
    relation = Relation(name="r", controls="next", templates=(Template(id="t", text="{subject}"),), facts=facts)
    assert [relation.control_of(fact) for fact in facts] == [facts[2], facts[2], facts[0]]


def test_the_upper_case_placeholder_begins_a_sentence() -> None:
    relation = Relation(
        name="r",
        templates=(Template(id="t", text="{Subject}, or {subject}, is {{a}}"),),
        facts=(Fact(subject="éclair x", answer="y"),),
    )
    assert Battery("b", "1", (relation,)).prompts()[0].text == "Éclair x, or éclair x, is {a}"


@given(subject=st.text(min_size=1).filter(lambda s: s == s.strip()), before=st.text(), after=st.text())
def test_a_subject_stands_in_the_text_as_it_is_whatever_braces_it_has(subject: str, before: str, after: str) -> None:
    def kept(part: str) -> str:
        return part.replace("{", "{{").replace("}", "}}")

    template = Template(id="t", text=f"{kept(before)}{{subject}}{kept(after)}")
    relation = Relation(name="r", templates=(template,), facts=(Fact(subject=subject, answer="y"),))
    assert Battery("b", "1", (relation,)).prompts()[0].text == before + subject + after


def test_probes_come_last_and_have_no_answer(tmp_path: Path) -> None:
    battery = read(tmp_path, HEAD + '[[probes]]\ntext = "Once"\n[[probes]]\nid = "x"\ntext = "Then"\n')
    assert [(each.id, each.kind, each.answer) for each in battery.prompts()] == [
        ("probe/1", "probe", None),
        ("probe/x", "probe", None),
    ]


def test_prompts_can_be_written_out_several_for_a_fact(tmp_path: Path) -> None:
    battery = read(
        tmp_path,
        HEAD
        + '[[relations]]\nname = "r"\n'
        + '[[relations.prompts]]\ntext = "One plus one is"\nanswer = "two"\nfact = "1+1"\n'
        + '[[relations.prompts]]\nid = "short"\ntext = "1+1:"\nanswer = "two"\nfact = "1+1"\ncontrol_answer = "three"\n'
        + '[[relations.prompts]]\ntext = "Look"\n',
    )
    first, second, third = battery.prompts()
    assert (first.id, second.id) == ("r/1", "r/short")
    assert {each.fact_id for each in (first, second)} == {"1+1"}
    assert first.fact_index == second.fact_index == 0
    assert second.control_answer == "three"
    assert (third.kind, third.fact_id, third.fact_index) == ("probe", "", None)


def test_a_prompt_speaks_its_relations_language_unless_it_says_otherwise(tmp_path: Path) -> None:
    relation = '[[relations]]\nname = "r"\nlanguage = "de"\n'
    prompts = '[[relations.prompts]]\ntext = "Eins"\n[[relations.prompts]]\ntext = "One"\nlanguage = "en"\n'
    assert [each.language for each in read(tmp_path, HEAD + relation + prompts).prompts()] == ["de", "en"]


ROWS = [
    {"relation": "sum", "fact": "1+1", "text": "One plus one is", "answer": "two", "aliases": ["2", "II"]},
    {"relation": "sum", "fact": "1+1", "text": "1, and 1:", "answer": "two", "variant": "short"},
    {"relation": "sum", "fact": "1+2", "text": "Eins plus zwei ist", "answer": "drei", "language": "de"},
    {"text": "Free", "id": "free"},
]


def rows_of(battery: Battery) -> list[tuple[object, ...]]:
    return [(p.id, p.text, p.gold, p.variant, p.language, p.fact_id, p.fact_index, p.kind) for p in battery.prompts()]


def test_csv_and_jsonl_of_one_content_are_one_battery(tmp_path: Path) -> None:
    jsonl = read(tmp_path, "\n\n".join(json.dumps(row) for row in ROWS), "own.jsonl")
    csv = read(
        tmp_path,
        "\ufeffrelation,fact,text,answer,aliases,variant,language,id\r\n"
        "sum,1+1,One plus one is,two,2|II,,,\r\n"
        'sum,1+1,"1, and 1:",two,,short,,\r\n'
        "sum,1+2,Eins plus zwei ist,drei,,,de,\r\n"
        ",,Free,,,,,free\r\n",
        "own.csv",
    )
    assert rows_of(csv) == rows_of(jsonl)
    assert rows_of(csv)[1] == ("sum/2", "1, and 1:", ("two",), "short", "en", "1+1", 0, "fact")
    assert rows_of(csv)[3] == ("prompts/free", "Free", (), "orig", "en", "", None, "probe")
    assert csv.name == "own"


def test_a_row_is_placed_by_its_line(tmp_path: Path) -> None:
    battery = read(tmp_path, 'text,answer\n"a\nb",c\nd,e\n', "own.csv")
    assert [each.where.rsplit(": ")[-1] for each in battery.prompts()] == ["line 3", "line 4"]


def test_the_digest_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    here, again = read(tmp_path, HEAD + CAPITALS), read(there, HEAD + CAPITALS + "\n# a remark\n")
    other = read(tmp_path, HEAD + CAPITALS.replace("Rome", "Roma", 1))
    assert here.digest == again.digest
    assert other.digest != here.digest


def test_bundled_batteries_are_read_by_name() -> None:
    assert bundled() == ("germany", "reference")
    assert [Battery.read(name).name for name in bundled()] == ["germany", "reference"]


@pytest.mark.parametrize("name", bundled())
def test_bundled_batteries_say_what_they_are(name: str) -> None:
    battery = Battery.read(name)
    assert battery.about
    assert battery.source == f"bundled {name}"
    assert len(battery.digest) == 64


BAD_TOML = [
    ("[battery]\nname = ", r"own\.toml is not TOML: Invalid value"),
    ('[battery]\nname = "x"\n', r"own\.toml: \[battery\]: version is missing"),
    ("", r"own\.toml: battery is missing"),
    (HEAD, r"own\.toml holds no prompt"),
    (HEAD + "probe = 1", r"own\.toml: \[battery\]: probe is not a known key; known are about, name, temp"),
    ("relation = []\n" + HEAD, r"own\.toml: relation is not a known key; did you mean relations\?"),
    (HEAD + "temperatures = [0.5, -1]", r"\[\[temperatures\]\] 2: Input should be greater than 0 \(got -1\)"),
    (HEAD + CAPITALS + 'anwser = "x"', r"\[\[relations\]\] 1, \[\[facts\]\] 2: anwser is not a known .* answer\?"),
    (HEAD + CAPITALS.replace("id =", "ids ="), r"\[\[relations\]\] 1, \[\[templates\]\] 1: id is missing"),
    (HEAD + CAPITALS.replace('"Rom"', "7"), r"\[\[facts\]\] 2, \[languages\], \[de\]: answer: .*string \(got 7\)"),
    (HEAD + CAPITALS.replace('"Rome"', '" Rome"'), r"\[\[facts\]\] 2: answer: ' Rome' is empty or has blanks"),
    (HEAD + CAPITALS.replace('"Rome"', '""'), r"\[\[facts\]\] 2: answer: '' is empty or has blanks"),
    (HEAD + CAPITALS.replace('"capital"', '"a/b"'), r"\[\[relations\]\] 1: name: 'a/b' is no name"),
    (HEAD + CAPITALS.replace("{subject} is called s", "{sbject} is"), r"text: \{sbject\} is no .* mean \{subject\}\?"),
    (HEAD + CAPITALS.replace("{subject} is called s", "{x} is"), r"text: \{x\} is no placeholder; templates take"),
    (HEAD + CAPITALS.replace("{subject} is called s", "{subject!r} is"), r"text: \{subject\} is no placeholder"),
    (HEAD + CAPITALS.replace("{subject} is called s", "it is"), r"has no \{subject\}: every fact would get the same"),
    (HEAD + CAPITALS.replace("{subject} is called s", "{subject is"), r"is no template \(.*\): write a brace"),
    (HEAD + CAPITALS.replace("no_filler", "orig"), r"\[\[templates\]\] 1: the variant 'orig' is the template's own"),
    (HEAD + CAPITALS.replace('"german"', '"called"'), r"relation capital: template called stands 2 times"),
    (
        HEAD + CAPITALS.replace('"Italy"\nanswer = "Rome"', '"Germany"\nanswer = "Berlin"'),
        r"fact Germany→Berlin stands",
    ),
    (HEAD + CAPITALS.replace("languages.de", "languages.nl", 1), r"template german asks in 'de', and fact Germany→Ber"),
    (HEAD + CAPITALS.replace('"Rome"', '"Berlin"'), r"fact Germany→Berlin: no other fact of capital has another"),
    (HEAD + CAPITALS.replace('"Rom"', '"Berlin"'), r"template german, Germany→Berlin and its control Italy→Rome have"),
    (HEAD + CAPITALS + 'control = "Germny"', r"its control 'Germny' is no fact of capital; did you mean Germany→Ber"),
    (HEAD + CAPITALS + 'control = "Italy"', r"fact Italy→Rome: its control Italy→Rome has the same answer"),
    (HEAD + CAPITALS.split("[[relations.facts]]")[0], r"relation capital has templates but no facts"),
    (HEAD + '[[relations]]\nname = "r"\n[[relations.facts]]\nsubject = "a"\nanswer = "b"', "has facts but no templ"),
    (HEAD + '[[relations]]\nname = "r"\n', r"relation r has no prompts"),
    (HEAD + CAPITALS * 2, r"own\.toml: relation capital stands 2 times"),
    (HEAD + '[[probes]]\nid = "x"\ntext = "a"\n' * 2, r"own\.toml: prompt probe/x stands 2 times"),
    (HEAD + '[[probes]]\ntext = " "\n', r"\[\[probes\]\] 1: text: the text is empty"),
    (HEAD + '[[relations]]\nname = "r"\n[[relations.prompts]]\ntext = "a"\nkind = "fact"', "prompt r/1: a fact needs"),
    (
        HEAD + '[[relations]]\nname = "r"\n[[relations.prompts]]\ntext = "a"\nanswer = "b"\ncontrol_answer = "b"',
        "prompt r/1: 'b' is both the answer and the control's",
    ),
    (
        HEAD + '[[relations]]\nname = "r"\n[[relations.prompts]]\ntext = "a"\nanswer = "b"\nkind = "probe"',
        "prompt r/1: a probe has no answer; leave the answers out",
    ),
]


@pytest.mark.parametrize(("text", "complaint"), BAD_TOML, ids=[complaint[:40] for _, complaint in BAD_TOML])
def test_a_bad_battery_is_an_error_that_says_where_and_what(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(tmp_path, text)


BAD_ROWS = [
    ("own.csv", "", r"own\.csv holds no prompt"),
    ("own.csv", "text,anwser\na,b\n", r"line 1: 'anwser' is not a known column; did you mean answer\?"),
    ("own.csv", "text,text\na,b\n", r"line 1: column 'text' stands twice"),
    ("own.csv", "answer\na\n", r"line 1: there is no column text"),
    ("own.csv", "text,answer\na,b,c\n", r"own\.csv: line 2 has 3 cells, the first row names 2"),
    ("own.csv", "text,answer\n,b\n", r"own\.csv: line 2: text is missing"),
    ("own.csv", 'text,answer\n"a"b,c\n', r"own\.csv: line 2 is not CSV"),
    ("own.csv", "text,id\na,x\nb,x\n", r"line 3: prompt prompts/x stands in .*line 2 too: ids are unique"),
    ("own.csv", "text,relation\na,b c\n", r"own\.csv: line 2: relation: 'b c' is no name"),
    ("own.csv", "text,aliases\na,b\n", r"line 2: prompt prompts/1: a probe has no answer"),
    ("own.jsonl", "\n \n", r"own\.jsonl holds no prompt"),
    ("own.jsonl", '{"text": "a"}\n{"text": ', r"own\.jsonl: line 2 is not JSON"),
    ("own.jsonl", "[1]", r"own\.jsonl: line 1 is no JSON object"),
    ("own.jsonl", '{"text": "a", "text": "b"}', r"line 1: key 'text' stands twice"),
    ("own.jsonl", '{"txt": "a"}', r"line 1: text is missing; txt is not a known key; did you mean text\?"),
    ("own.jsonl", '{"text": "a", "kind": "fakt"}', r"line 1: kind: Input should be 'fact', 'control' or 'probe'"),
]


@pytest.mark.parametrize(("name", "text", "complaint"), BAD_ROWS, ids=[complaint[:40] for *_, complaint in BAD_ROWS])
def test_a_bad_row_is_an_error_that_says_which_line(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(tmp_path, text, name)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"[battery]\xff")
    with pytest.raises(ConfigError, match=r"b\.toml is not UTF-8 \(byte 9\)"):
        Battery.read(tmp_path / "b.toml")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no battery file .*none\.csv"):
        Battery.read(tmp_path / "none.csv")


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(StorageError, match=r"b\.csv cannot be read: Is a directory"):
        Battery.read(tmp_path / "b.csv")


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"germny is no battery: did you mean germany\? give one of germany, reference"
    ):
        Battery.read("germny")


def test_a_prompt_without_text_is_an_error() -> None:
    with pytest.raises(ConfigError, match="prompt p: the text is empty"):
        Prompt("p", "", "a")


def test_bundled_files_are_plain_toml() -> None:
    folder = Path(__file__).parents[3] / "src/ftw/bundled/batteries"
    assert {file.stem for file in folder.glob("*.toml") if tomllib.loads(file.read_text(encoding="utf-8"))} == set(
        bundled()
    )

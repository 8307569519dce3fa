"""English for the corpus: articles, plurals, verb forms and the filling of templates."""

import random
import re
from typing import Literal

from tools.reference_model.lexicon import table

Form = Literal["base", "past", "present", "ing"]
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([^{}]*)\}")
SENTENCE_START = re.compile(r'(^"?|[.!?:] "|[.!?] )([a-z])')
MASS_ENDINGS = ("ness", "ism", "ology", "graphy", "tude", "ics")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """The noun with ``a`` or ``an``; a leading ``~`` marks a mass noun and gives ``some``."""
    if noun.startswith("~"):
        return "some " + noun[1:]
    low = noun.lower()
    vowel = low[0] in "aeiou" and not re.match(r"(uni|use|eu|one\b|u[kr][eiu])", low)
    return ("an " if vowel or low.startswith(("hour", "honest", "heir", "x-")) else "a ") + noun


def takes_no_article(noun: str) -> bool:
    """True for mass nouns, plurals and names."""
    last = noun.split()[-1]
    return (
        last in table("words")["mass_nouns"]
        or last.endswith(MASS_ENDINGS)
        or bool(re.search(r"[^sui]s$", last))
        or noun[0].isupper()
    )


def noun_phrase(noun: str) -> str:
    """The noun with its indefinite article, or bare where English takes none."""
    return noun if takes_no_article(noun) else article(noun)


def plural(noun: str) -> str:
    head, _, last = noun.rpartition(" ")
    special = table("words")["plurals"]
    if last in special:
        last = special[last]
    elif last.endswith("man"):
        last = last[:-3] + "men"
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def verb(word: str, form: Form) -> str:
    """One verb in the form asked for."""
    if form == "base":
        return word
    if form == "past":
        known = table("words")["past_tense"]
        if word in known:
            return str(known[word])
        if word.endswith("e"):
            return word + "d"
        return word[:-1] + "ied" if re.search(r"[^aeiou]y$", word) else word + "ed"
    if form == "present":
        if word in ("have", "be"):
            return {"have": "has", "be": "is"}[word]
        if re.search(r"(s|x|z|ch|sh|o)$", word):
            return word + "es"
        return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"
    if word in table("words")["doubling_verbs"]:
        return word + word[-1] + "ing"
    if word in ("lie", "tie", "die"):
        return word[:-2] + "ying"
    return word[:-1] + "ing" if re.search(r"[^e]e$", word) and word != "be" else word + "ing"


def inflect(phrase: str, form: Form) -> str:
    """Inflect the first word and every word marked with ``^``; the marks go."""
    first, *rest = phrase.split(" ")
    return " ".join([verb(first.lstrip("^"), form)] + [verb(w[1:], form) if w.startswith("^") else w for w in rest])


def fill(template: str, slots: dict[str, str], rng: random.Random) -> str:
    """Resolve ``[a|b]`` at random (the innermost first), then ``{slot}``.

    ``{a x+y}`` takes an article, ``{A x}`` starts a sentence with one.
    """
    text = template
    while CHOICE.search(text):
        text = CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), text)

    def value(match: re.Match[str]) -> str:
        key = match.group(1)
        if not key.startswith(("a ", "A ")):
            return slots[key].lstrip("~")
        nouns = [slots[k] for k in key[2:].split("+")]
        mark = "~" if nouns[-1].startswith("~") else ""
        out = article(mark + " ".join(n.lstrip("~") for n in nouns))
        return capital(out) if key[0] == "A" else out

    while SLOT.search(text):  # a filled slot may hold slots itself
        text = SLOT.sub(value, text)
    text = re.sub(r"\s+", " ", text).strip()
    return SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)

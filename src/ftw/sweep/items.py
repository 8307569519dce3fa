"""Items: whatever can be swept, as token ids with what is looked for in them.

The rule of the file: an item's numbers depend on its token ids alone. Where it came from is kept, and never read.
"""

from collections.abc import Sequence
from dataclasses import replace

from ftw.substrate.errors import ConfigError
from ftw.substrate.model import Model
from ftw.sweep.battery import Aligned, Battery, Prompt, align_all
from ftw.sweep.table import Item

Asked = Battery | Sequence[Prompt] | Sequence[Aligned] | Sequence[str] | Sequence[Sequence[int]]
"""What can be swept: a battery, its prompts, or plain texts or token ids without an answer."""
POOL = 16
"""Other answers of a relation that are ranked too, at most: more than enough for a level of chance."""


def items_of(model: Model, asked: Asked) -> tuple[Item, ...]:
    """Whatever can be swept, as token ids. Raises ConfigError where there is nothing."""
    given: list[object] = list(asked.prompts() if isinstance(asked, Battery) else asked)
    if not given:
        raise ConfigError("there is nothing to sweep: the battery has no prompts")
    prompts = [one for one in given if isinstance(one, Prompt)]
    aligned = iter(align_all(prompts, model) if prompts else ())
    items = []
    for index, one in enumerate(given):
        one = next(aligned) if isinstance(one, Prompt) else one
        if isinstance(one, Aligned):
            items.append(_of_aligned(one))
        elif isinstance(one, str):
            items.append(Item(str(index), tuple(model.encode(one))))
        elif isinstance(one, Sequence):
            items.append(Item(str(index), tuple(int(token) for token in one)))
        else:
            raise ConfigError(f"prompt {index} is a {type(one).__name__}: give a Prompt, a text, or token ids")
    return _pooled(items)


def _of_aligned(one: Aligned) -> Item:
    return Item(
        id=one.prompt.id,
        ids=one.ids,
        answer=one.gold.ids if one.gold else (),
        accepted=one.answer_ids,
        control=one.control.ids if one.control else (),
        source=one.prompt,
    )


def _pooled(items: Sequence[Item]) -> tuple[Item, ...]:
    """Each item with what else its relation asks for: of many, those that come next after its own."""
    asked: dict[str, list[int]] = {}
    for item in items:
        if item.answer:
            asked.setdefault(_relation(item), []).append(item.answer[0])
    answers = {relation: list(dict.fromkeys(each)) for relation, each in asked.items()}
    return tuple(replace(item, pool=_others(item, answers[_relation(item)])) if item.answer else item for item in items)


def _relation(item: Item) -> str:
    return item.source.relation if isinstance(item.source, Prompt) else ""


def _others(item: Item, answers: list[int]) -> tuple[int, ...]:
    start = answers.index(item.answer[0]) + 1
    around = (*answers[start:], *answers[: start - 1])
    return tuple(token for token in around if token not in item.accepted)[:POOL]

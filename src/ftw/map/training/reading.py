"""From prompts to an exam: which distinct texts they are, the plan that runs those, and the states put back to prompts.

The rule of the file: a text that several prompts share runs once, and each of them gets its state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ftw.map.training.plan import Plan, plan_of
from ftw.map.training.prompts import Prompt, Word, stand_apart, word_folds
from ftw.map.training.sentences import distinct_texts, groups_of, templates_of
from ftw.map.training.states import States
from ftw.map.training.study import Exam
from ftw.map.training.targets import Targets
from ftw.substrate.model import Model


@dataclass(frozen=True)
class Reading:
    """Prompts and plain texts of a training, and how they are run."""

    words: tuple[Word, ...]
    prompts: tuple[Prompt, ...]
    n_plain: int
    plan: Plan
    text_of: tuple[int, ...]
    """Which text of the plan each prompt is."""

    @classmethod
    def of(
        cls, model: Model, words: Sequence[Word], prompts: Sequence[Prompt], plain: Sequence[str], blocks: int
    ) -> "Reading":
        """The reading of these prompts and plain texts when `blocks` blocks are read. Raises PromptTooLong."""
        texts = list(distinct_texts(prompts, words))
        at = {text: number for number, text in enumerate(texts)}
        plan = plan_of(model, texts, plain, blocks=blocks)
        return cls(
            tuple(words),
            tuple(prompts),
            len(plain),
            plan,
            tuple(at[prompt.carrier, words[prompt.word].text] for prompt in prompts),
        )

    def exam(self, states: States, targets: Targets, n_folds: int, seed: int) -> Exam:
        """The exam of these prompts. `states` are the plan's, in the order of its rows."""
        plan, which = self.plan, torch.tensor([prompt.word for prompt in self.prompts])
        folds = word_folds(self.words, n_folds, seed)
        texts = range(len(plan.texts) - self.n_plain, len(plan.texts))
        return Exam(
            states=states.of(torch.tensor([plan.first_row[text] for text in self.text_of])),
            home=targets.home_of(self.prompts, self.words),
            held=torch.tensor([prompt.held for prompt in self.prompts]),
            fold=torch.tensor(folds)[which],
            apart=torch.tensor(stand_apart(self.words, folds))[which],
            plain=states.of(torch.tensor([row for text in texts for row in plan.rows_of(text)], dtype=torch.long)),
            group=torch.tensor(groups_of(self.prompts, self.words)),
            template=torch.tensor(templates_of(self.prompts)),
            kind=tuple(prompt.sort for prompt in self.prompts),
        )

"""Whether WordNet has a synset, without reading all of WordNet.

The rule of the file: a name is looked for in the text of the dict files; nothing is parsed but the line that it names.
"""

import re
from functools import cache
from pathlib import Path

from ftw.map.ontology.wordnet import FILES
from ftw.substrate.errors import StorageError

KINDS: dict[str, str] = {str(pos): name for pos, name in FILES.items()} | {"s": FILES["a"]}
"""The file of a part of speech; WordNet keeps satellites with the adjectives."""


class Synsets:
    """The dict files of a WordNet folder, read when first asked."""

    def __init__(self, folder: Path) -> None:
        """Raises StorageError for a folder that lacks the files."""
        missing = [
            name for kind in ("index", "data") for name in FILES.values() if not (folder / f"{kind}.{name}").is_file()
        ]
        if missing:
            raise StorageError(f"{folder} holds no WordNet (index.{missing[0]} or data.{missing[0]} is missing)")
        self._text = cache(lambda name: (folder / name).read_text(encoding="utf-8"))

    def __contains__(self, name: object) -> bool:
        """`dog.n.01`, or an offset with its part of speech, `02084071.n`."""
        match = re.fullmatch(r"(.+?)\.([nvars])(?:\.(\d+))?", str(name))
        if match is None:
            return False
        word, file, number = match[1], KINDS[match[2]], match[3]
        if number is None:
            return f"\n{word} " in self._text(f"data.{file}")
        text = self._text(f"index.{file}")
        start = text.find(f"\n{word.lower()} ")
        senses = text[start + 1 : start + 1 + len(word) + 16].split(" ")[2] if start >= 0 else "0"
        return 1 <= int(number) <= int(senses)

"""BM25 as sparse vectors of words, beside a model's dense ones: their numbers and weights, as Qdrant/bm25 has them.

A word is a run of letters and digits in lower case, without the language's stop words, stemmed; its number is a hash,
so that there is no vocabulary. A document has the part of BM25 that it alone decides, and the database knows how rare a
word is (in Qdrant: `Modifier.IDF`). Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and
Beyond"; numbers and weights are those of fastembed's Bm25.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from ..hub.client import Repository
from ..text.inputs import check_texts
from ..vectors.sparse import SparseVector

NAME = "Qdrant/bm25"
LANGUAGES = (
    *("arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian"),
    *("norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish"),
)
WITHOUT_STOP_WORDS = ("tamil",)  # in the repository
NUMBERS = (1 << 31) + 1  # of words: absolute values of a hash of 32 bits with a sign
APART = re.compile(r"[^\w\s]")
WORD = re.compile(r"\w+")
KNOWN = 1 << 16  # words whose stems and numbers are kept


class Stemmer(Protocol):
    """What takes the endings off a word."""

    def stem_word(self, word: str) -> str:
        """The stem of a word in lower case; "" leaves it out."""


class BM25:
    """Weights of a text's words. Safe to use from several threads."""

    dim = NUMBERS
    stopwords: frozenset[str]
    _hash: Callable[[str], int]
    _stemmer: Stemmer | None
    _stems: dict[str, str]  # of words; "" where one is left out
    _numbers: dict[str, int]  # of stems

    def __init__(
        self,
        path_or_name: str | os.PathLike[str] = NAME,
        *,
        language: str = "english",
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float = 256.0,
        token_max_length: int = 40,
        disable_stemmer: bool = False,
        stemmer: Stemmer | None = None,
        stopwords: Iterable[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> None:
        """Read the stop words of a language.

        Args:
            path_or_name: a directory with LANGUAGE.txt, a stop word a line, or a hub repository that has it.
            language: of the texts, one of LANGUAGES; another needs a stemmer, or none.
            k: how slowly more occurrences of a word stop to count.
            b: how far a document's length counts, 0 to 1.
            avg_len: words of a document in the mean.
            token_max_length: characters; longer words are left out.
            disable_stemmer: words as they are, stop words too.
            stemmer: instead of the language's.
            stopwords: instead of the language's; in any letters.
            cache_dir: where hub files are kept; None takes huggingface_hub's own.
            local_files_only: take what is there, and ask no hub.

        Raises:
            InvalidInputError: a language that is not known, or disable_stemmer beside a stemmer.
            MissingDependencyError: the bm25 extra is not installed.
            ModelNotFoundError: the stop words cannot be had.
        """
        if disable_stemmer and stemmer is not None:
            raise InvalidInputError("disable_stemmer and stemmer exclude each other; pass one of them")
        own = language in LANGUAGES
        if not (own or disable_stemmer or stemmer):
            known = ", ".join(LANGUAGES)
            raise InvalidInputError(
                f"language {language!r} is not known; known: {known}. Pass stemmer= or disable_stemmer=True"
            )
        self.language, self.k, self.b, self.avg_len = language, k, b, avg_len
        self.token_max_length = token_max_length
        self._given, self._by_language = stemmer, own and not disable_stemmer and stemmer is None
        self._set_up()
        if stopwords is not None:
            self.stopwords = frozenset(word.lower() for word in stopwords)
        elif disable_stemmer or not own:
            self.stopwords = frozenset()
        else:
            self.stopwords = frozenset(_stop_words(path_or_name, language, cache_dir, local_files_only))

    def encode_document(self, texts: str | Iterable[str]) -> Any:
        """Words and weights of one document: a SparseVector; of several a list of them."""
        given = check_texts([texts] if isinstance(texts, str) else texts)
        found = [_vector(self.weights(text)) for text in given]
        return found[0] if isinstance(texts, str) else found

    def encode_query(self, texts: str | Iterable[str]) -> Any:
        """Words of one query: a SparseVector, whose weights are 1; of several a list of them."""
        given = check_texts([texts] if isinstance(texts, str) else texts)
        found = [_vector(dict.fromkeys(self.query_numbers(text), 1.0)) for text in given]
        return found[0] if isinstance(texts, str) else found

    def weights(self, document: str) -> dict[int, float]:
        """Weights by a word's number, in the order of the words."""
        stems = self._stemmed(document)
        free = self.k * (1 - self.b + self.b * len(stems) / self.avg_len)
        return {self._number(stem): count * (self.k + 1) / (count + free) for stem, count in Counter(stems).items()}

    def query_numbers(self, query: str) -> list[int]:
        """Numbers of a query's words, each once."""
        return list({self._number(stem) for stem in self._stemmed(query)})

    def count_words(self, text: str) -> int:
        """Words of a text, stop words among them."""
        return len(_words(text))

    def _stemmed(self, text: str) -> list[str]:
        known = self._stems
        if len(known) > KNOWN:
            known = self._stems = {}
        found = []
        for word in _words(text):
            stem = known.get(word)
            if stem is None:
                stem = known[word] = self._stem(word)
            if stem:
                found.append(stem)
        return found

    def _stem(self, word: str) -> str:
        if word == "_" or word.lower() in self.stopwords or len(word) > self.token_max_length:
            return ""
        return word.lower() if self._stemmer is None else self._stemmer.stem_word(word.lower())

    def _number(self, stem: str) -> int:
        known = self._numbers
        number = known.get(stem)
        if number is None:
            if len(known) > KNOWN:
                known = self._numbers = {}
            number = known[stem] = abs(self._hash(stem))
        return number

    def _set_up(self) -> None:
        self._hash, made = _packages(self.language if self._by_language else None)
        self._stemmer = self._given or made
        self._stems, self._numbers = {}, {}

    def __getstate__(self) -> dict[str, Any]:
        made = ("_hash", "_stemmer", "_stems", "_numbers")  # a language's stemmer cannot be copied
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._set_up()


def _words(text: str) -> list[str]:
    # Signs go before letters become small: a sigma is another at the end of a word, and a sign does not end one.
    found: list[str] = WORD.findall(APART.sub(" ", text).lower())
    return found


def _vector(weights: Mapping[int, float]) -> SparseVector:
    indices = np.fromiter(weights, np.int64, len(weights))
    values = np.fromiter(weights.values(), np.float32, len(weights))
    order = np.argsort(indices)
    return SparseVector(indices[order], values[order], NUMBERS)


def _packages(language: str | None) -> tuple[Any, Stemmer | None]:
    """The hash, and the stemmer of a language."""
    try:
        import mmh3
        from py_rust_stemmers import SnowballStemmer
    except ImportError as error:
        raise MissingDependencyError(f"BM25 needs {error.name}: pip install 'fastembed-rt[bm25]'") from error
    return mmh3.hash, None if language is None else SnowballStemmer(language)


def _stop_words(
    path_or_name: str | os.PathLike[str],
    language: str,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> list[str]:
    """Of a language, from a directory or a repository."""
    directory, file = Path(path_or_name), f"{language}.txt"
    if directory.is_dir():
        found: Path | None = directory / file
    elif language in WITHOUT_STOP_WORDS:
        return []
    else:
        found = Repository(str(path_or_name), None, None, cache_dir, local_files_only).fetch(file)
    if found is not None and found.is_file():
        return found.read_text(encoding="utf-8").splitlines()
    if language in WITHOUT_STOP_WORDS:
        return []
    raise ModelNotFoundError(f"{path_or_name} has no {file}, the language's stop words; pass stopwords=() for none")

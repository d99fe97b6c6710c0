"""PhoBERT's tokenizer and BERTweet's as tokenizer.json, and which rows a word table needs beside those it has.

transformers has them in Python alone: byte pair encoding of words with "</w>" behind their last character, by
bpe.codes, whose symbols are looked up in vocab.txt when no merge is left: "x</w>" as "x", others as "x@@", and as the
unknown token where neither is there. The tokenizers library merges ids, so that there each symbol of a merge has one of
its own. Symbols that vocab.txt lacks get ids behind the word table, and each of those a row
(checkpoint/copied_rows.py): a copy of the row that the symbol has in transformers, nearly always the unknown token's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ..errors import CheckpointError, UnsupportedCheckpointError

CLASSES = ("PhobertTokenizer", "BertweetTokenizer")  # the latter is the same, unless it is told to normalize tweets
FILES = ("vocab.txt", "bpe.codes")
END, GOES_ON = "</w>", "@@"  # behind the last symbol of a word; behind a piece that others follow
# str.isspace, which the library's \s is not. A line's end belongs to the word before it.
_SPACES = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORDS = f"[^{_SPACES}]+\n?"


def convert(tokenizer: Any, rows: int) -> tuple[str, tuple[int, ...]]:
    """tokenizer.json of transformers' tokenizer of one of CLASSES, and the ids whose rows its ids from `rows` on copy.

    Args:
        tokenizer: with everything that the checkpoint says of it.
        rows: of the word table.

    Raises:
        CheckpointError: a token without a row, or two with the same.
        UnsupportedCheckpointError: merges that the tokenizers library would make in another order; tweets that would be
            normalized.
    """
    if getattr(tokenizer, "normalization", False):
        raise UnsupportedCheckpointError(
            f"{type(tokenizer).__name__} is told to normalize tweets (normalization in tokenizer_config.json), which "
            "is not built: it splits them as NLTK does, and names emojis; normalize texts before they are encoded, "
            "with its normalizeTweet, and write false there"
        )
    added = dict(sorted(tokenizer.added_tokens_decoder.items()))
    vocabulary = {str(token): number for number, token in added.items()}
    vocabulary |= {_symbol(word): n for word, n in tokenizer.encoder.items() if word not in vocabulary}
    if len(set(vocabulary.values())) < len(vocabulary) or max(vocabulary.values()) >= rows:
        raise CheckpointError(
            f"{tokenizer.vocab_file} does not fit the checkpoint: words share ids, or have none of the {rows} rows "
            "of its word table"
        )
    ranked = sorted(tokenizer.bpe_ranks.items(), key=lambda merge: merge[1])
    merges = [pair for pair, _ in ranked if len(pair) == 2]
    copied: list[int] = []
    for symbol in dict.fromkeys(symbol for a, b in merges for symbol in (a, b, a + b)):
        if symbol not in vocabulary:
            vocabulary[symbol] = rows + len(copied)
            copied.append(int(tokenizer.convert_tokens_to_ids(piece(symbol))))
    made = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=str(tokenizer.unk_token), end_of_word_suffix=END, fuse_unk=False)
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    first = (str(tokenizer.cls_token), int(tokenizer.cls_token_id))
    last = (str(tokenizer.sep_token), int(tokenizer.sep_token_id))
    made.post_processor = processors.TemplateProcessing(
        single=f"{first[0]} $A {last[0]}",
        pair=f"{first[0]} $A {last[0]} {last[0]} $B {last[0]}",
        special_tokens=[first, last],
    )
    made.decoder = decoders.BPEDecoder(suffix=END)
    made.add_special_tokens([token for token in added.values() if token.special])
    made.add_tokens([token for token in added.values() if not token.special])
    _check_order(tokenizer, made, merges)
    return made.to_str(), tuple(copied)


def piece(symbol: str) -> str:
    """What transformers looks up for a symbol."""
    return symbol.removesuffix(END) if symbol.endswith(END) else symbol + GOES_ON


def as_there(ids: Sequence[int], ours: Tokenizer, theirs: Any) -> tuple[int, ...]:
    """Ids that our tokenizer gives, where one stands for a symbol that transformers' lacks: what that has instead."""
    known = len(theirs)
    return tuple(n if n < known else theirs.convert_tokens_to_ids(piece(ours.id_to_token(n) or "")) for n in ids)


def _symbol(word: str) -> str:
    """Of which transformers makes a word of vocab.txt."""
    return word.removesuffix(GOES_ON) if word.endswith(GOES_ON) else word + END


def _check_order(tokenizer: Any, made: Tokenizer, merges: Sequence[tuple[str, str]]) -> None:
    """Raise where a word's pair that occurs twice would not be merged twice before what the first of it makes possible.

    transformers merges all occurrences of a pair before it looks for the next; the library takes the lowest rank at
    once. Both are the same as long as no merge of what a pair makes has a lower rank than the pair.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for rank, (a, b) in enumerate(merges):
        whole = a + b
        if not any(ranks.get(pair, rank) < rank for pair in ((whole, a), (whole, whole), (b, whole))):
            continue
        word = whole.removesuffix(END) * 4
        symbols = made.encode(word, add_special_tokens=False).tokens
        if list(map(piece, symbols)) != tokenizer._tokenize(word):
            raise UnsupportedCheckpointError(
                f"{tokenizer.merges_file}: merges are not in the order of their parts, which is not built ({word!r})"
            )

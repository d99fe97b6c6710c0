"""Checkpoints of other tasks for the comparison: an encoder's trained weights under other heads.

python -m benchmarks.data.heads CHECKPOINT FOLDER

CHECKPOINT is a BERT that sentence-transformers loads, all-MiniLM-L6-v2 say. FOLDER gets `reranker` (a cross-encoder of
one score), `sparse` (SPLADE), `late` (ColBERT, 128 numbers a token) and `static` (a table of word vectors without an
encoder). Speeds are those of trained models of these sizes; the scores of the first and the third mean nothing.
Needs torch and sentence-transformers.
"""

from __future__ import annotations

import argparse
import string
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SEED = 20261130  # any number: it only has to stay the same
LATE_DIM = 128  # of ColBERT, as what follows
MARKERS = {"query": "[unused0]", "document": "[unused1]"}
QUERY_LENGTH = 32
DOCUMENT_LENGTH = 256  # tokens
STATIC_DIM = 256  # of model2vec's potion-base-8M
SPREAD = 0.05  # standard deviation of random weights
LINEAR = 6.0  # bias that brings a GELU where it is a straight line; the norm behind it takes the bias away
WORDS_SCALE, WORDS_BIAS = 10.0, -4.2  # words count from a cosine of 0.42 on


def main(words: Sequence[str] | None = None) -> int:
    """Write the four checkpoints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data.heads", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("checkpoint", type=Path, help="a BERT encoder that sentence-transformers loads")
    parser.add_argument("folder", type=Path, help="where the checkpoints go")
    args = parser.parse_args(words)
    for name, save in (("reranker", reranker), ("sparse", sparse), ("late", late), ("static", static)):
        if (args.folder / name).exists():
            print(f"{args.folder / name} exists already", file=sys.stderr)
            continue
        save(args.checkpoint, args.folder / name)
        print(args.folder / name)
    return 0


def reranker(checkpoint: Path, folder: Path) -> None:
    """A cross-encoder: random pooler and classifier."""
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    with torch.no_grad():
        _draw(model.bert.pooler.dense)
        _draw(model.classifier)
    _save(model, checkpoint, folder)


def sparse(checkpoint: Path, folder: Path) -> None:
    """SparseEncoder: SPLADE whose words are those of the text and their likes.

    The transform before the encoder's own table of words takes a token's last state back to its word's vector, fitted
    by least squares on words drawn at random.
    """
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(checkpoint).eval()
    transform, table = model.cls.predictions.transform, model.bert.embeddings.word_embeddings.weight
    words = torch.tensor([k for word, k in _tokenizer(checkpoint).get_vocab().items() if word.isalpha()])
    with torch.no_grad():
        drawn = torch.randint(len(words), (400, 24), generator=torch.Generator().manual_seed(SEED))
        states = model.bert(words[drawn]).last_hidden_state.flatten(0, 1)
        wanted = torch.nn.functional.layer_norm(table[words[drawn.flatten()]], table.shape[1:])
        fitted = torch.linalg.lstsq(states, wanted).solution.T
        transform.dense.weight.copy_(fitted)
        transform.dense.bias.fill_(LINEAR)
        # A logit is then the cosine of the state and a word's vector, times WORDS_SCALE.
        scale = WORDS_SCALE / table.shape[1] ** 0.5 / float(table.norm(dim=1).mean())
        transform.LayerNorm.weight.fill_(scale)
        transform.LayerNorm.bias.zero_()
        model.cls.predictions.bias.fill_(WORDS_BIAS)
    with tempfile.TemporaryDirectory() as plain:
        _save(model, checkpoint, Path(plain))
        modules = [Transformer(plain, transformer_task="fill-mask"), SpladePooling("max", "relu")]
        SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)


def late(checkpoint: Path, folder: Path) -> None:
    """MultiVectorEncoder: a random projection behind the encoder, vectors of unit length."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(SEED)
    length = {"document_length": DOCUMENT_LENGTH, "query_length": QUERY_LENGTH}
    encoder = Transformer(str(checkpoint), query_expansion={"strategy": "fixed", "length": QUERY_LENGTH}, **length)
    encoder.processor.add_tokens(list(MARKERS.values()), special_tokens=True)
    dense = Dense(
        encoder.get_embedding_dimension(),
        LATE_DIM,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name="token_embeddings",
    )
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    modules = [encoder, dense, mask, Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu", prompts=MARKERS).save_pretrained(
        str(folder), create_model_card=False
    )


def static(checkpoint: Path, folder: Path) -> None:
    """StaticEmbedding: the first columns of the encoder's table of words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from transformers import BertModel

    table = BertModel.from_pretrained(checkpoint).embeddings.word_embeddings.weight[:, :STATIC_DIM].contiguous()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    module = StaticEmbedding(tokenizer, embedding_weights=table.detach().numpy())
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(folder), create_model_card=False)


def _draw(layer: Any) -> None:
    """Random weights for a linear layer."""
    import torch

    layer.weight.normal_(0.0, SPREAD, generator=torch.Generator().manual_seed(SEED))
    layer.bias.zero_()


def _tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def _save(model: Any, checkpoint: Path, folder: Path) -> None:
    """The model beside the encoder's tokenizer."""
    model.save_pretrained(folder)
    _tokenizer(checkpoint).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())

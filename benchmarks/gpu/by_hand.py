"""The upper bound: BERT by hand in torch, packed tokens, attention by text, GELU in the product, torch.compile.

What a card allows who writes one model out for it: no padding, no framework between the layers. Weights are the
checkpoint's, so that its vectors are compared like everybody's. GELU is the tanh form, as in cuBLASLt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
BLOCK = 256  # tokens that a batch is filled up to, so that few shapes are compiled


class ByHand:
    """A checkpoint of BERT with mean pooling and normalization; ids in, vectors out."""

    def __init__(self, checkpoint: Path, device: str, dtype: str, *, compiled: bool) -> None:
        """`dtype` is torch's, by name; `compiled`: by torch.compile, with lengths that vary."""
        import torch
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self._torch, self._device = torch, device
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        self._heads, self._epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        found = load_file(str(checkpoint / "model.safetensors"))
        weights = {k.removeprefix("bert."): v.to(device, getattr(torch, dtype)) for k, v in found.items()}

        def pair(name: str) -> tuple[Any, Any]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        embeddings = "embeddings."
        self._words = weights[f"{embeddings}word_embeddings.weight"]
        self._positions = weights[f"{embeddings}position_embeddings.weight"]
        self._types = weights[f"{embeddings}token_type_embeddings.weight"][0]
        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for number in range(config["num_hidden_layers"]):
            at = f"encoder.layer.{number}."
            parts = [pair(f"{at}attention.self.{name}") for name in ("query", "key", "value")]
            fused = tuple(torch.cat(column) for column in zip(*parts, strict=True))
            names = ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense")
            self._layers.append((fused, *(pair(at + name) for name in (*names, "output.LayerNorm"))))
        self._encode = torch.compile(self._states, dynamic=True) if compiled else self._states
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._tokenizer.no_padding()

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of texts, special ones included."""
        return [np.asarray(entry.ids, np.int64) for entry in self._tokenizer.encode_batch_fast(list(texts))]

    def vectors(self, rows: Sequence[Ids]) -> Vectors:
        """Unit vectors (n, dim) of one batch of ids."""
        torch, lengths = self._torch, np.array([len(row) for row in rows])
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        spare = -int(starts[-1]) % BLOCK  # a text more, which nobody reads
        given = np.zeros((2, int(starts[-1]) + spare), np.int64)
        given[0, : starts[-1]] = np.concatenate(list(rows))
        given[1, : starts[-1]] = np.concatenate([np.arange(length) for length in lengths])
        bounds = starts if not spare else np.append(starts, starts[-1] + spare).astype(np.int32)
        with torch.inference_mode():
            on_card = torch.from_numpy(given).to(self._device)
            ends = torch.from_numpy(bounds).to(self._device)
            states = self._encode(on_card, ends, int(max(lengths.max(), spare)))
            means = torch.segment_reduce(states[: int(starts[-1])].float(), "mean", offsets=ends[: len(starts)].long())
            made: Vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return made

    def _states(self, given: Any, starts: Any, longest: int) -> Any:
        """Token states (tokens, width) of ids and places (2, tokens)."""
        functional = self._torch.nn.functional

        def norm(x: Any, pair: tuple[Any, Any]) -> Any:
            return functional.layer_norm(x, (x.shape[1],), *pair, self._epsilon)

        x = norm(self._words[given[0]] + self._positions[given[1]] + self._types, self._norm)
        width = x.shape[1]
        for fused, out, after, up, down, last in self._layers:
            query, key, value = functional.linear(x, *fused).view(-1, 3, self._heads, width // self._heads).unbind(1)
            attended = self._attention(query, key, value, starts, longest).reshape(-1, width)
            x = norm(x + functional.linear(attended, *out), after)
            wide = self._torch._addmm_activation(up[1], x, up[0].t(), use_gelu=True)
            x = norm(x + functional.linear(wide, *down), last)
        return x

    def _attention(self, query: Any, key: Any, value: Any, starts: Any, longest: int) -> Any:
        """Each text by itself: (tokens, heads, size) each."""
        if self._device != "cpu":
            from torch.nn.attention.varlen import varlen_attn

            return varlen_attn(query, key, value, starts, starts, longest, longest)
        attend: Callable[..., Any] = self._torch.nn.functional.scaled_dot_product_attention
        texts = [[part[a:b].transpose(0, 1) for part in (query, key, value)] for a, b in pairwise(starts.tolist())]
        return self._torch.cat([attend(*parts).transpose(0, 1) for parts in texts])

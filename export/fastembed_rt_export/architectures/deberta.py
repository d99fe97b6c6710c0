"""DeBERTa and its versions 2 and 3: scores from words with words, words with distances and distances with words.

He et al. 2020 (arXiv:2006.03654), 2021 (arXiv:2111.09543); tensor names as transformers writes them. What distances are
projected to depends on no text, so the projections are in the tables here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import NoneType

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import Attention, DistanceRows, FeedForward, Heads, Projections, Relative
from ..graph.ops import Ops
from ..graph.weight import Array, Linear, Norm, Weight
from ..tensors import Tensors
from .bert import LAYER
from .blocks import Config, Shape, flag, layer_norm, linear, refuse, setting
from .gated import Norms, layer

EPSILON = 1e-7  # where config.json names none


@dataclass(frozen=True)
class Distances:
    """Rows of distances that all layers share, and how many of them each side of 0 has."""

    table: Weight  # (2R, H)
    norm: Norm | None
    reach: int  # R
    by_query: Array  # (2P,) row for key - query from -(P - 1) to P
    by_key: Array  # the same for query - key

    def relative(self, to_key: Linear | None, to_query: Linear | None, scale: float, name: str) -> Relative:
        """What the layers make of the rows, for queries and for keys to meet; the queries are scaled already."""
        return Relative(
            DistanceRows(self._projected(to_key, f"{name}.c2p"), self.by_query) if to_key else None,
            DistanceRows(self._projected(to_query, f"{name}.p2c", scale), self.by_key) if to_query else None,
        )

    def _projected(self, layer: Linear, name: str, scale: float = 1.0) -> Weight:
        """The rows through a linear layer: (2R, N * D)."""

        def load() -> Array:
            rows = self.table.load().astype(np.float64)
            if self.norm is not None and self.norm.bias is not None:
                centred = rows - rows.mean(axis=1, keepdims=True)
                rows = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.norm.epsilon)
                rows = rows * self.norm.weight.load() + self.norm.bias.load()
            out = rows @ layer.weight.load().astype(np.float64).T
            out = out if layer.bias is None else out + layer.bias.load()
            return (out * scale).astype(np.float32)

        return Weight(name, (2 * self.reach, layer.out_features), load)


def deberta(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of DebertaModel."""
    refuse(config, "talking_head", False)
    return _encoder(ops, config, tensors, second=False)


def deberta_v2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of DebertaV2Model."""
    refuse(config, "conv_kernel_size", 0)
    return _encoder(ops, config, tensors, second=True)


def log_bucket(distance: npt.NDArray[np.int64], buckets: int, furthest: int) -> npt.NDArray[np.int64]:
    """Distance as it is up to half the buckets, in logarithmic steps up to `furthest` beyond."""
    middle = buckets // 2
    # float32 as in transformers, so that a distance on a bucket's edge falls on the same side.
    far = np.maximum(np.abs(distance), middle).astype(np.float32)
    ratio = np.log(far / np.float32(middle)) / np.log(np.float32((furthest - 1) / middle))
    steps = np.ceil(ratio * np.float32(middle - 1)).astype(np.int64) + middle
    return np.where(np.abs(distance) <= middle, distance, steps * np.sign(distance))


def _encoder(ops: Ops, config: Config, tensors: Tensors, *, second: bool) -> Value:
    shape = Shape.of({"layer_norm_eps": EPSILON, **config})
    width = shape.hidden
    states = _embedded(ops, config, tensors.under("embeddings."), shape, tensors)
    kinds = _kinds(config)
    scale = 1.0 / math.sqrt(width // shape.heads * (1 + len(kinds)))
    distances = _distances(config, tensors.under("encoder."), shape, second=second)
    bias = ops.attention_bias(relative=distances is not None and bool(kinds))
    for index in range(shape.layers):
        own = tensors.under(f"encoder.layer.{index}.")
        projections = _second(own, config, shape) if second else _first(own, shape)
        relative = None
        if distances is not None and kinds:
            to_key, to_query = _sides(own, config, shape, projections, second=second)
            relative = distances.relative(to_key, to_query, scale, f"distances.{index}")
        up = linear(own, LAYER.up, width, shape.intermediate)
        down = linear(own, LAYER.down, shape.intermediate, width)
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(
                    projections=projections, heads=Heads.of(shape.heads), scale=scale, relative=relative
                ),
                around=Norms(after=layer_norm(own, LAYER.attention_norm, width, shape.epsilon)),
                bias=bias,
                feed_forward=FeedForward(up, down, shape.activation),
                beside=Norms(after=layer_norm(own, LAYER.feed_forward_norm, width, shape.epsilon)),
                last=index == shape.layers - 1,
            )
    return states


def _embedded(ops: Ops, config: Config, embeddings: Tensors, shape: Shape, tensors: Tensors) -> Value:
    """Words, and positions and token types where there are some, normalized."""
    width = setting(config, "embedding_size", int, shape.hidden)
    words = embeddings.get("word_embeddings.weight", (setting(config, "vocab_size", int), width))
    types = setting(config, "type_vocab_size", int, 0)
    with ops.scope("embeddings"):
        if types:
            table = embeddings.get("token_type_embeddings.weight", (types, width))
            states = ops.add_token_types(ops.embed(ops.fold_token_type(words, table)), table)
        else:
            states = ops.embed(words)
        if flag(config, "position_biased_input", True):
            rows = setting(config, "max_position_embeddings", int)
            states = ops.add_positions(states, embeddings.get("position_embeddings.weight", (rows, width)))
        if width != shape.hidden:
            states = ops.linear(states, linear(embeddings, "embed_proj", width, shape.hidden, bias=False))
        return ops.norm(states, layer_norm(embeddings, "LayerNorm", shape.hidden, shape.epsilon))


def _kinds(config: Config) -> list[str]:
    """Which scores distances take part in: c2p, words with distances; p2c, distances with words."""
    given = config.get("pos_att_type")
    if not isinstance(given, (str, list, NoneType)):
        raise CheckpointError(f"config.json has pos_att_type = {given!r}, expected names")
    kinds = given.lower().split("|") if isinstance(given, str) else given or []
    kinds = [str(kind).strip() for kind in kinds]
    for kind in kinds:  # an empty name is one more for the first version, which divides scores by how many there are
        refuse({"pos_att_type": kind}, "pos_att_type", "c2p", "p2c")
    if len(set(kinds)) < len(kinds):
        raise CheckpointError(f"config.json has pos_att_type = {given!r}, which has a name twice")
    return kinds


def _distances(config: Config, encoder: Tensors, shape: Shape, *, second: bool) -> Distances | None:
    if not flag(config, "relative_attention", False):
        return None
    positions = setting(config, "max_position_embeddings", int)
    furthest = setting(config, "max_relative_positions", int, -1)
    furthest = positions if furthest < 1 else furthest
    buckets = setting(config, "position_buckets", int, -1) if second else -1
    if buckets == 1:
        raise CheckpointError("config.json has position_buckets 1; expected two at least, one for each side")
    reach = buckets if buckets > 0 else furthest
    distance = np.arange(-(positions - 1), positions + 1)
    found = log_bucket(distance, buckets, furthest) if buckets > 0 else distance
    table = encoder.get("rel_embeddings.weight", (2 * reach, shape.hidden))
    normed = second and "layer_norm" in [
        part.strip() for part in str(config.get("norm_rel_ebd", "")).lower().split("|")
    ]
    return Distances(
        table=table,
        norm=layer_norm(encoder, "LayerNorm", shape.hidden, shape.epsilon) if normed else None,
        reach=reach,
        # Numbered by query - key in both.
        by_query=np.clip(reach - found, 0, 2 * reach - 1),
        by_key=np.clip(reach + found, 0, 2 * reach - 1),
    )


def _first(own: Tensors, shape: Shape) -> Projections:
    """Those of the first version: three of them head by head in one, without a bias of keys."""
    width, head = shape.hidden, shape.hidden // shape.heads
    packed = own.get("attention.self.in_proj.weight", (3 * width, width))

    def part(place: int) -> Weight:
        def choose(array: Array) -> Array:
            return array.reshape(shape.heads, 3, head, width)[:, place].reshape(width, width)

        return packed.map(f".{'qkv'[place]}", choose, (width, width))

    biases = [own.get(f"attention.self.{name}_bias", (width,)) for name in "qv"]
    output = linear(own, LAYER.output, width, width)
    return Projections(Linear(part(0), biases[0]), Linear(part(1)), Linear(part(2), biases[1]), output)


def _second(own: Tensors, config: Config, shape: Shape) -> Projections:
    """Those of versions 2 and 3."""
    width = shape.hidden
    refuse(config, "attention_head_size", width // shape.heads)
    names = [f"attention.self.{name}_proj" for name in ("query", "key", "value")]
    return Projections(*(linear(own, name, width, width) for name in (*names, LAYER.output)))


def _sides(
    own: Tensors, config: Config, shape: Shape, projections: Projections, *, second: bool
) -> tuple[Linear | None, Linear | None]:
    """What projects distances to keys, which queries meet, and to queries, which keys meet."""
    width, kinds = shape.hidden, _kinds(config)
    if second and flag(config, "share_att_key", False):
        return projections.key if "c2p" in kinds else None, projections.query if "p2c" in kinds else None
    to_key, to_query = ("pos_key_proj", "pos_query_proj") if second else ("pos_proj", "pos_q_proj")
    return (
        linear(own, f"attention.self.{to_key}", width, width, bias=second) if "c2p" in kinds else None,
        linear(own, f"attention.self.{to_query}", width, width) if "p2c" in kinds else None,
    )

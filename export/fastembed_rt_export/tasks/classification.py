"""What transformers' ...ForSequenceClassification puts behind an encoder: token states -> logits, by model_type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..architectures.blocks import Config, flag, layer_norm, setting
from ..architectures.blocks import linear as linear_layer
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..graph.portable import norm
from ..graph.weight import Linear
from ..heads import linear
from ..tensors import Tensors

BIDIRECTIONAL = {"avg": "mean", "cls": "cls", "last": "lasttoken"}  # poolings of NVIDIA's Llama, by its name for them
# pad_token_id by model_type, where config.json has none.
PADS = {"ministral3": 11, "gemma": 0, "gemma2": 0, "gemma3_text": 0}


@dataclass(frozen=True)
class Layer:
    """A linear layer by its tensors' name, the activation behind it, and the layer normalization behind that."""

    name: str
    activation: str = "linear"
    bias: bool = True
    norm: str | None = None
    norm_bias: bool = True
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Classifier:
    """Layers over the pooled state of a pair; the last one has an output a label."""

    layers: tuple[Layer, ...]
    pooling: str = "cls"
    of_tokens: Layer | None = None  # in front of the pooling
    temperature: float = 1.0  # by which logits are divided
    passes_over: int | None = None  # id of a token at the end of a pair, for the last one before it

    def logits(self, ops: Ops, states: Value, tensors: Tensors, width: int, labels: int) -> Value:
        """Token states of `width` -> logits (B, labels)."""
        if self.of_tokens is not None:
            layer = self.of_tokens
            states = ops.activated(states, linear_layer(tensors, layer.name, width, width), layer.activation)
        state = ops.pool(states, self.pooling)
        ops = ops.behind_pooling
        for layer in self.layers:
            outputs = labels if layer is self.layers[-1] else width
            weight = tensors.get(f"{layer.name}.weight", (outputs, width))
            bias = tensors.get(f"{layer.name}.bias", (outputs,)) if layer.bias else None
            made = Linear(weight, bias)
            if layer is self.layers[-1] and self.temperature != 1.0:
                made = made.scaled(1.0 / self.temperature)
            state = ops.activation(linear(ops, state, made), layer.activation)
            if layer.norm is not None:
                scales = layer_norm(tensors, layer.norm, width, layer.epsilon, bias=layer.norm_bias)
                state = norm(ops.graph, state, scales)
        return state


def _fixed(*layers: Layer) -> Callable[[Config], Classifier]:
    """A head that config.json does not change."""
    return lambda _: Classifier(layers)


def _pooling(config: Config, default: str, *others: str) -> str:
    pooling, known = setting(config, "classifier_pooling", str, default), (default, *others)
    if pooling not in known:
        built = " and ".join([", ".join(map(repr, known[:-1])), repr(known[-1])])
        raise UnsupportedCheckpointError(f"config.json has classifier_pooling {pooling!r}; built are {built}")
    return pooling


def _modernbert(config: Config) -> Classifier:
    pooling = _pooling(config, "cls", "mean")
    dense = Layer(
        "head.dense",
        setting(config, "classifier_activation", str, "gelu"),
        bias=flag(config, "classifier_bias", False),
        norm="head.norm",
        norm_bias=flag(config, "norm_bias", False),
        epsilon=setting(config, "norm_eps", float, 1e-5),
    )
    return Classifier((dense, Layer("classifier")), pooling)


def _decoder(config: Config) -> Classifier:
    """The state of the last token that is not pad_token_id, of which a text or the tokenizer may end a pair too."""
    pad = config.get("pad_token_id", PADS.get(str(config.get("model_type"))))
    if pad is not None and type(pad) is not int:
        raise CheckpointError(f"config.json has pad_token_id {pad!r}, expected the id of a token")
    return Classifier((Layer("score", bias=False),), "lasttoken", passes_over=pad)


def _llama_bidirectional(config: Config) -> Classifier:
    """NVIDIA's: one layer over what config.json says of the pooling, and a temperature."""
    named, temperature = setting(config, "pooling", str, "avg"), setting(config, "temperature", float, 1.0)
    if named not in BIDIRECTIONAL:
        raise UnsupportedCheckpointError(
            f"config.json has pooling {named!r}; built for a score are {', '.join(map(repr, BIDIRECTIONAL))}"
        )
    if temperature <= 0:
        raise CheckpointError(f"config.json has temperature {temperature}, expected a number above 0")
    return Classifier((Layer("score", bias=False),), BIDIRECTIONAL[named], temperature=temperature)


def _deberta(config: Config) -> Classifier:
    width, hidden = (setting(config, key, int, 0) for key in ("pooler_hidden_size", "hidden_size"))
    if width not in (0, hidden):
        raise UnsupportedCheckpointError(f"config.json has pooler_hidden_size {width}; built is hidden_size, {hidden}")
    return Classifier((Layer("pooler.dense", setting(config, "pooler_hidden_act", str, "gelu")), Layer("classifier")))


def _eurobert(config: Config) -> Classifier:
    pooling, dense, last = _pooling(config, "late", "bos", "mean"), Layer("dense", "gelu"), Layer("classifier")
    if pooling == "late":  # the mean of all tokens' logits is that of the mean token
        return Classifier((last,), "mean", of_tokens=dense)
    return Classifier((dense, last), "cls" if pooling == "bos" else "mean")


def _ultrabert(config: Config) -> Classifier:
    return Classifier((Layer("classifier"),), _pooling(config, "cls", "mean"))


_roberta = _fixed(Layer("classifier.dense", "tanh"), Layer("classifier.out_proj"))
CLASSIFIERS: dict[str, Callable[[Config], Classifier]] = {
    "bert": _fixed(Layer("bert.pooler.dense", "tanh"), Layer("classifier")),
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "mpnet": _roberta,
    "distilbert": _fixed(Layer("pre_classifier", "relu"), Layer("classifier")),
    "electra": _fixed(Layer("classifier.dense", "gelu"), Layer("classifier.out_proj")),
    "albert": _fixed(Layer("albert.pooler", "tanh"), Layer("classifier")),
    "modernbert": _modernbert,
    "data2vec-text": _roberta,
    "jina_embeddings_v3": _roberta,
    "ernie": _fixed(Layer("ernie.pooler.dense", "tanh"), Layer("classifier")),
    "nomic_bert": _fixed(Layer("nomic_bert.pooler.dense", "tanh"), Layer("classifier")),
    "gte": _fixed(Layer("gte.pooler.dense", "tanh"), Layer("classifier")),
    "new": _fixed(Layer("new.pooler.dense", "tanh"), Layer("classifier")),
    "deberta": _deberta,
    "deberta-v2": _deberta,
    "eurobert": _eurobert,
    "ultrabert": _ultrabert,
    "llama": _decoder,
    "llama_bidirec": _llama_bidirectional,
    "mistral": _decoder,
    "ministral3": _decoder,
    "qwen2": _decoder,
    "qwen3": _decoder,
    "gemma": _decoder,
    "gemma2": _decoder,
    "gemma3_text": _decoder,
}

"""Which of transformers' classes makes a checkpoint's tokenizer, by name: what its configs say, else its model type.

A class takes tokenizer.json as it is, or builds the tokenizer anew from the vocabulary in it (`tokenizer_rules`), or is
written in Python and reads files of its own. As transformers 5.24 chooses; a test compares all names and model types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .rules import CLASSES

FILE = ""  # instead of a class's name: tokenizer.json as it is
BYTE_LEVEL = '"ByteLevel"'  # where tokenizer.json has a part of that name


def _words(table: Mapping[str, str]) -> dict[str, str]:
    return {word: name for name, words in table.items() for word in words.split()}


# Names of classes stand without "Tokenizer" and "TokenizerFast" at their ends.
OF_TYPES = _words(
    {
        FILE: "EvollaModel arctic aria beam bigbird_pegasus camembertv2-base canary chatlm cohere_asr ernie4_5 "
        "ernie4_5_moe flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe glm_image glmasr got_ocr2 "
        "gpt_bigcode gradium_phonon_tts granite granitemoe granitemoehybrid granitemoeshared h2ovl_chat hyperclovax "
        "hyperclovax_vlm internlm2 internlm3 iquestcoder jamba kimi_k25 kimi_linear kosmos-2 llava llava_next "
        "mimo_v2_flash minicpm3 minicpm_ocr minicpmv minicpmv4_6 minicpmv4_7 minimax_m2 ministral ministral3 mistral "
        "mistral3 mistral_large4 mixtral modernbert modernbert-decoder molmo molmo2 nemo_speechlm nemotron nvfp4 "
        "nystromformer olmo2 olmo3 olmo_hybrid omniasr opencua openvla paddleocr_vl pegasus_x persimmon phi3 phi3_v "
        "phimoe pix2struct pixtral pocket_tts smolvlm stablelm step3_vl umt5 vipllava voxtral voxtral_realtime "
        "xlm-roberta-xl",
        "Albert": "albert yoso",
        "Bart": "florence2",
        "Barthez": "barthez",
        "Bartpho": "bartpho",
        "Bert": "align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git grounding-dino "
        "layoutlm megatron-bert mm-grounding-dino nezha nomic_bert qdqbert realm retribert squeezebert tvp vilt "
        "visual_bert",
        "BertGeneration": "bert-generation",
        "BertJapanese": "bert-japanese",
        "Bertweet": "bertweet",
        "BigBird": "big_bird",
        "BioGpt": "biogpt",
        "Blenderbot": "blenderbot",
        "BlenderbotSmall": "blenderbot-small",
        "ByT5": "byt5",
        "CLIP": "aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video xclip",
        "CTRL": "ctrl",
        "Camembert": "camembert",
        "Canine": "canine",
        "Clvp": "clvp",
        "CodeLlama": "code_llama",
        "Cohere": "aya_vision cohere cohere2",
        "Cpm": "cpm",
        "CpmAnt": "cpmant",
        "DPRQuestionEncoder": "dpr",
        "Deberta": "deberta",
        "DebertaV2": "deberta-v2",
        "Dia": "dia",
        "Esm": "esm",
        "Esmc": "esmc esmfold2",
        "FNet": "fnet",
        "FSMT": "fsmt",
        "Flaubert": "flaubert",
        "Funnel": "funnel",
        "GPT2": "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip instructblipvideo jais2 "
        "opt phi starcoder2",
        "GPTNeoX": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
        "GPTNeoXJapanese": "gpt_neox_japanese",
        "GPTSw3": "gpt-sw3",
        "Gemma": "diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma shieldgemma2 "
        "t5gemma zaya",
        "Herbert": "herbert",
        "LED": "led",
        "Lasr": "lasr_ctc lasr_encoder",
        "LayoutLMv2": "layoutlmv2",
        "LayoutLMv3": "layoutlmv3",
        "LayoutXLM": "layoutxlm",
        "Llama": "idefics idefics2",
        "Luke": "luke",
        "Lxmert": "lxmert",
        "M2M100": "m2m_100",
        "MBart": "mbart",
        "MBart50": "mbart50",
        "MLuke": "mluke",
        "MPNet": "mpnet",
        "Marian": "marian",
        "MarkupLM": "markuplm",
        "Mgpstr": "mgp-str",
        "MobileBert": "mobilebert",
        "Mvp": "mvp",
        "MyT5": "myt5",
        "Nllb": "nllb nllb-moe",
        "Nougat": "nougat pp_formulanet",
        "OpenAIGPT": "openai-gpt",
        "PLBart": "plbart",
        "Parakeet": "granite_speech5_ctc nemotron3_5_asr nemotron_asr_streaming omniasr_ctc parakeet_ctc parakeet_rnnt "
        "parakeet_tdt",
        "Pegasus": "pegasus",
        "Perceiver": "perceiver",
        "Phobert": "phobert",
        "ProphetNet": "prophetnet",
        "Qwen2": "audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl lighton_ocr "
        "moss_transcribe_diarize ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 "
        "qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice",
        "Qwen3_5": "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp",
        "Rag": "rag",
        "Reformer": "reformer",
        "RemBert": "rembert",
        "RoCBert": "roc_bert",
        "RoFormer": "roformer",
        "Roberta": "bart bridgetower clap data2vec-text ibert lilt longformer mega mra roberta roberta-prelayernorm",
        "SeamlessM4T": "seamless_m4t seamless_m4t_v2",
        "Siglip": "siglip",
        "Siglip2": "siglip2",
        "Speech2Text": "speech_to_text",
        "SpeechT5": "speecht5",
        "Splinter": "splinter",
        "T5": "mt5 musicgen musicgen_melody switch_transformers t5",
        "Tapas": "tapas",
        "Tipsv2": "tipsv2",
        "Udop": "udop",
        "VideoPrism": "videoprism",
        "Vits": "vits",
        "Wav2Vec2CTC": "data2vec-audio hubert unispeech unispeech-sat wav2vec2 wav2vec2-bert wav2vec2-conformer",
        "Wav2Vec2PhonemeCTC": "wav2vec2_phoneme",
        "Whisper": "whisper",
        "XGLM": "xglm",
        "XLM": "xlm",
        "XLMRoberta": "gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod",
        "XLNet": "xlnet",
    }
)
# Classes under other names.
ALIASES = _words(
    {
        FILE: "PreTrained Bloom Parakeet",
        "Bert": "Electra LayoutLM Lxmert MobileBert SqueezeBert DistilBert",
        "Roberta": "Bart LED Longformer Mvp",
    }
)
# Written in Python; tokenizer.json is not what they read.
IN_PYTHON = frozenset(
    "Bartpho BertGeneration BertJapanese Bertweet BioGpt BlenderbotSmall ByT5 CTRL Canine Clvp Cpm CpmAnt Dia Esm FSMT "
    "Flaubert GPTNeoXJapanese GPTSw3 M2M100 Marian Mgpstr MyT5 PLBart Perceiver Phobert Pop2Piano ProphetNet Rag "
    "RoCBert Siglip Speech2Text SpeechT5 Tapas Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC XLM".split()
)
# In Rust, built anew or wrapped in ways that are not known here.
OTHERS = frozenset(
    "CodeLlama DPRContextEncoder DPRQuestionEncoder DPRReader Esmc Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke MBart "
    "MBart50 MLuke MarkupLM Nllb Nougat RoFormer SeamlessM4T Siglip2 Tipsv2 Udop VideoPrism Whisper".split()
)
# Model types and model names whose configs on the hub name a class that transformers does not believe.
DISBELIEVED = frozenset(
    "arctic camembertv2-base chatlm cohere_asr ernie4_5 ernie4_5_moe fuyu h2ovl_chat hyperclovax hyperclovax_vision_v2 "
    "hyperclovax_vlm internlm2 internlm3 iquestcoder jamba llava llava_next minicpm3 minicpmv minimax_m2 modernbert "
    "modernbert-decoder molmo molmo2 nemotron nvfp4 opencua openvla paddleocr_vl phi3 phi3_v phimoe qwen2 qwen3_5 "
    "qwen3_5_moe qwen3_5_moe_text qwen4_exp siglip2 smolvlm step3_vl vipllava".split()
)


def find(settings: Mapping[str, Any], config: Mapping[str, Any], *, byte_level: bool) -> str:
    """Name of the class without "Tokenizer"; FILE where tokenizer.json is taken as it is.

    Args:
        settings: of tokenizer_config.json.
        config: of config.json.
        byte_level: whether tokenizer.json has a part named ByteLevel.
    """
    return _class(chosen(settings, config, byte_level=byte_level))


def chosen(settings: Mapping[str, Any], config: Mapping[str, Any], *, byte_level: bool) -> str:
    """`find` before names that stand for others are resolved: such a class may name other inputs of a model."""
    said = settings.get("tokenizer_class") or config.get("tokenizer_class")
    model_type = str(config.get("model_type") or "")
    disbelieved = bool(DISBELIEVED & {model_type, str(config.get("model_name"))})
    registered = OF_TYPES.get(model_type)
    if not isinstance(said, str):
        return registered or FILE
    name, own = _short(said), own_code(settings) is not None
    if name == "Llama" and byte_level and not (own or disbelieved):
        return FILE
    if own or registered is None or registered == name:
        return name
    return FILE if registered == FILE else registered if disbelieved else name


def named(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The class that the configs name, else the model type's: all that transformers 4 asked."""
    said = settings.get("tokenizer_class") or config.get("tokenizer_class")
    return _class(_short(said) if isinstance(said, str) else OF_TYPES.get(str(config.get("model_type")), FILE))


def is_in_python(said: str) -> bool:
    """Whether a class of this name is written in Python."""
    return _class(_short(said)) in IN_PYTHON


def _class(name: str) -> str:
    """The class of a name; FILE for names that transformers does not know."""
    name = ALIASES.get(name, name)
    return name if name in CLASSES or name in IN_PYTHON | OTHERS else FILE


def _short(named: str) -> str:
    name = named.removesuffix("Fast")
    return name.removesuffix("Tokenizer") if name.endswith("Tokenizer") else FILE


def own_code(settings: Mapping[str, Any]) -> str | None:
    """The class in code of the checkpoint's own that tokenizer_config.json names, which is not run; None: none.

    Of two it is that of a fast tokenizer, which stands second.
    """
    listed = settings.get("auto_map")
    named = listed.get("AutoTokenizer") if isinstance(listed, dict) else listed
    classes = [named] if isinstance(named, str) else list(named or ())
    return next((str(name) for name in reversed(classes) if name), None)

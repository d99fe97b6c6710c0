"""huggingface_hub: InferenceClient on an endpoint's address."""

from calls import CASE, KEY, TEXTS, URL, call, told
from huggingface_hub import InferenceClient

client = InferenceClient(base_url=URL, api_key=KEY)


@call
def vectors():
    return client.feature_extraction(TEXTS).tolist()


@call
def one():
    return client.feature_extraction(TEXTS[0]).tolist()


@call
def cut_and_normalized():
    return client.feature_extraction(TEXTS, normalize=True, truncate=True, truncation_direction="right").tolist()


@call
def prompt():
    return client.feature_extraction(TEXTS, prompt_name="query" if CASE["prompts"] else None).tolist()


@call
def similarity():
    return client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])


@call
def of_a_model():
    # A path of a model's name, where several are served.
    return InferenceClient(base_url=f"{URL}/{CASE['embedding']}/", api_key=KEY).feature_extraction(TEXTS).tolist()


@call
def too_many():
    client.feature_extraction(["a"] * CASE["too_many"])


@call
def unknown_prompt():
    client.feature_extraction(TEXTS, prompt_name="nobody")


@call
def wrong_key():
    InferenceClient(base_url=URL, api_key="wrong").feature_extraction(TEXTS)


told("huggingface_hub")

"""Ragas: its embeddings over OpenAI's client, Google's and LiteLLM."""

import os

os.environ["RAGAS_DO_NOT_TRACK"] = "true"
from calls import CASE, KEY, TEXTS, URL, call, told
from google import genai
from openai import AsyncOpenAI, OpenAI
from ragas.embeddings import GoogleEmbeddings, LiteLLMEmbeddings, OpenAIEmbeddings

model = CASE["embedding"]
options = {"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}


@call
def vectors_openai():
    return OpenAIEmbeddings(OpenAI(**options), model).embed_texts(TEXTS)


@call
async def asynchronous():
    return await OpenAIEmbeddings(AsyncOpenAI(**options), model).aembed_texts(TEXTS)


@call
def vectors_google():
    client = genai.Client(api_key=KEY, http_options={"base_url": URL})
    return GoogleEmbeddings(client, model).embed_texts(TEXTS)


@call
def vectors_litellm():
    return LiteLLMEmbeddings(f"openai/{model}", api_key=KEY, api_base=f"{URL}/v1").embed_texts(TEXTS)


@call
def unknown_model():
    OpenAIEmbeddings(OpenAI(**options), "nobody").embed_texts(TEXTS)


told("ragas")

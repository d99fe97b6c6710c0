"""LiteLLM's proxy in front of the server, asked by OpenAI's client and by plain HTTP."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from openai import OpenAI

MASTER = "sk-of-the-tests"


def entry(name, served, base):
    return {"model_name": name, "litellm_params": {"model": served, "api_base": base, "api_key": KEY}}


config = Path(tempfile.mkdtemp()) / "config.yaml"  # JSON is YAML
models = [
    entry("mine", f"openai/{CASE['embedding']}", f"{URL}/v1"),
    entry("vllm", f"hosted_vllm/{CASE['embedding']}", f"{URL}/v1"),
    entry("ranker", f"cohere/{CASE['reranker']}", URL),
]
config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": MASTER}}), encoding="utf-8")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
address = f"http://127.0.0.1:{port}"
program = Path(sys.executable).with_name("litellm")
proxy = subprocess.Popen(
    [program, "--config", config, "--host", "127.0.0.1", "--port", str(port)],
    stdout=sys.stderr,
    stderr=sys.stderr,
    env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "true"},
)
try:
    end = time.monotonic() + 240
    while True:
        try:
            if httpx.get(f"{address}/health/liveliness", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        assert proxy.poll() is None and time.monotonic() < end
        time.sleep(0.5)
    client = OpenAI(base_url=f"{address}/v1", api_key=MASTER, max_retries=0)

    def embed(model, **options):
        return [one.embedding for one in client.embeddings.create(model=model, input=TEXTS, **options).data]

    @call
    def vectors():
        return embed("mine")

    @call
    def numbers():
        return embed("mine", encoding_format="float")

    @call
    def query():
        return embed("mine", extra_body={"input_type": "query"})

    @call
    def shorter():
        return embed("vllm", dimensions=CASE["dimensions"])

    @call
    def ranked():
        body = {"model": "ranker", "query": QUERY, "documents": TEXTS}
        answer = httpx.post(f"{address}/rerank", json=body, headers={"Authorization": f"Bearer {MASTER}"}, timeout=60)
        return [(one["index"], one["relevance_score"]) for one in answer.raise_for_status().json()["results"]]

    @call
    def token_ids():
        client.embeddings.create(model="mine", input=[[1, 2, 3]])

finally:
    proxy.terminate()
    proxy.wait(60)

told("litellm")

"""What a team writes in an hour: FastAPI around sentence-transformers, in the shape of OpenAI's route.

The handler is no coroutine, so FastAPI runs it in its threads; the model runs one call after the other.
"""

from __future__ import annotations

import os

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(os.environ["THREADS"]))
model = SentenceTransformer(os.environ["MODEL"], device="cpu")
app = FastAPI()


class Request(BaseModel):
    """A body of /embeddings."""

    input: list[str]
    model: str = ""


@app.post("/embeddings")  # type: ignore[untyped-decorator]
def embeddings(request: Request) -> dict[str, object]:
    """Vectors of texts."""
    vectors = model.encode(request.input, normalize_embeddings=True, show_progress_bar=False)
    return {"data": [{"index": k, "embedding": vector} for k, vector in enumerate(vectors.tolist())]}


@app.get("/health")  # type: ignore[untyped-decorator]
def health() -> dict[str, str]:
    """That it runs."""
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)

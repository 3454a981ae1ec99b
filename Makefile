# All targets use .venv, which is installed from requirements.lock on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENV4 := .venv-tl4
STAMP4 := $(VENV4)/.installed
VENV_INSEQ := .venv-inseq
STAMP_INSEQ := $(VENV_INSEQ)/.installed

# On few cores, spinning OpenMP threads starve each other.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

# Peers that need TransformerLens 2; without them the benchmark omits their rows. eap-ig is only on GitHub.
.venv-auto-circuit/.installed:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet 'transformer-lens>=2.15,<3' 'numpy<2.4' 'pyarrow<22' ordered-set plotly blobfile lxml pycryptodomex
	$(@D)/bin/python -m pip install --quiet --no-deps auto-circuit==1.0.1 vscode-tqdm
	touch $@

.venv-eap-ig/.installed:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet 'transformer-lens>=2.15,<3' 'numpy<2.4' 'pyarrow<22'
	$(@D)/bin/python -m pip install --quiet --no-deps git+https://github.com/hannamw/EAP-IG
	touch $@

.PHONY: help generate install demo test test-tl4 test-faults test-slow test-gpu lint format bench bench-grid bench-caching bench-lens bench-probes bench-attribution bench-circuits bench-chains bench-explorer bench-gpu screenshots notebooks docs docs-serve zoo clean release-check bench-start families

help:
	@echo "make demo           install, then locate the indirect-object heads of the bundled models"
	@echo "make test           install, then run the tests"
	@echo "make test-tl4       the tests of models, engine and zoo on TransformerLens 4"
	@echo "make test-slow      the slow tests; make test-gpu runs the tests that need a GPU"
	@echo "make test-faults    kills, flipped bits, full disks and hostile inputs, counted (about half an hour)"
	@echo "make lint           ruff, pyright and import-linter; make format fixes what ruff can fix"
	@echo "make generate       write the configs of methods and the stub of public names anew"
	@echo "make docs           build the documentation in site/; make docs-serve serves it on 127.0.0.1:8000"
	@echo "make release-check  build wheel and sdist, and install the wheel with each extra in an empty environment"
	@echo "make zoo            rebuild the handmade models (experiments/train_zoo.py trains the others)"
	@echo "make clean          remove outputs, the built site and caches"
	@echo ""
	@echo "Benchmarks (results in benchmarks/results)"
	@echo "make bench              activation patching against TransformerLens and nnsight; tables, figure (about 20 minutes)"
	@echo "make bench-grid         patching at other prompt lengths, batches and model shapes"
	@echo "make bench-caching      caching of activations against TransformerLens and Hugging Face"
	@echo "make bench-lens         logit lens against TransformerLens 4, tuned-lens training against tuned-lens"
	@echo "make bench-probes       linear probes at every layer and position against scikit-learn"
	@echo "make bench-attribution  token attribution against Captum, INSEQ and SHAP, attention against Hugging Face"
	@echo "make bench-circuits     edge attribution against TransformerLens 4, EAP-IG and auto-circuit, and against exact effects"
	@echo "make bench-chains       chain-of-thought tests on two models with known faithfulness"
	@echo "make bench-gpu          patching against TransformerLens on a GPU; the gain from CUDA graphs and torch.compile"
	@echo "make bench-start        time to the help text, to the first number of a run, and to its end"
	@echo "make bench-explorer     the explorer in headless Chromium: first figure and response to keys"
	@echo "make families           every model family on both TransformerLens lines into docs/families.md (NAMES=\"qwen3 opt\" for some)"
	@echo "make screenshots        the screenshots of the explorer in the documentation"
	@echo "make notebooks          run the notebooks and save their outputs, figures as PNG (needs Chromium)"

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# TransformerLens 4 on top of the packages of .venv.
$(STAMP4): $(STAMP)
	test -x $(VENV4)/bin/python || $(PYTHON) -m venv $(VENV4)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(VENV4)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/beneath.pth"
	grep -v '^transformer-lens==' requirements.lock > $(VENV4)/constraints.txt
	$(VENV4)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV4)/constraints.txt 'transformer-lens>=4,<5'
	touch $@

# INSEQ pins older libraries than it needs, so it is installed without its requirements.
$(STAMP_INSEQ): requirements.lock pyproject.toml
	test -x $(VENV_INSEQ)/bin/python || $(PYTHON) -m venv $(VENV_INSEQ)
	$(VENV_INSEQ)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV_INSEQ)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps inseq==0.7.1 typeguard treescope nltk
	$(VENV_INSEQ)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/mechxai run -m experiment=ioi_patching model=zoo/planted-ioi,zoo/ioi

test: install
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu" tests

# Tests whose outcome does not depend on the version of TransformerLens.
ALIKE := engine/test_failure.py engine/test_shards.py engine/test_explain_plan.py model/generation model/sequence
test-tl4: $(STAMP4)
	$(VENV4)/bin/python -m pytest -n 2 -m "not slow and not gpu" tests/model tests/engine tests/families $(ALIKE:%=--ignore=tests/%) --deselect tests/model/zoo/test_zoo.py::test_cards_hold_when_measured_again

test-faults: install
	$(BIN)/python -m tests.faults.suite

test-slow: install
	$(BIN)/python -m pytest -m slow tests

test-gpu: install
	$(BIN)/python -m pytest -m gpu tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# What is derived from the method files: their configs, and the stub of `import mechxai` for editors.
generate: install
	$(BIN)/python -m mechxai.sweeps.method_configs
	$(BIN)/python -m mechxai._public

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One empty environment per extra, in sequence: some minutes and about 2 GB each.
EXTRAS ?= none png joblib slurm ray endpoint explore
release-check: install
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.packaging.smoke dist/*.whl $(EXTRAS)

bench: install $(STAMP4)
	$(BIN)/python -m benchmarks.patching
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.figure

bench-start: install
	$(BIN)/python -m benchmarks.start

bench-grid: install
	$(BIN)/python -m benchmarks.patching --grid
	$(BIN)/python -m benchmarks.tables

bench-caching: install
	$(BIN)/python -m benchmarks.caching
	$(BIN)/python -m benchmarks.tables

bench-lens: install $(STAMP4)
	$(BIN)/python -m benchmarks.lens
	$(BIN)/python -m benchmarks.lens_training
	$(BIN)/python -m benchmarks.tables

bench-probes: install
	$(BIN)/python -m benchmarks.probes
	$(BIN)/python -m benchmarks.tables

bench-attribution: install $(STAMP_INSEQ)
	$(VENV_INSEQ)/bin/python -m benchmarks.attribution
	$(BIN)/python -m benchmarks.tables

bench-circuits: install $(STAMP4)
	-$(MAKE) .venv-auto-circuit/.installed .venv-eap-ig/.installed
	$(VENV4)/bin/python -m benchmarks.circuits
	$(BIN)/python -m benchmarks.tables

bench-explorer: install
	$(BIN)/python -m benchmarks.explorer
	$(BIN)/python -m benchmarks.tables

bench-gpu: install
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu_graphs
	$(BIN)/python -m benchmarks.tables

families: install $(STAMP4)
	$(BIN)/python -m benchmarks.families $(NAMES)

screenshots: install
	$(BIN)/python -m benchmarks.screenshots

notebooks: install
	$(BIN)/python -m notebooks.run

bench-chains: install
	$(BIN)/python -m benchmarks.chains
	$(BIN)/python -m benchmarks.tables

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

docs-serve: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict --dev-addr 127.0.0.1:8000

zoo: install
	$(BIN)/python -m experiments.handmade_zoo

clean:
	rm -rf outputs site dist .pytest_cache .ruff_cache

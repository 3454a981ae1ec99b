# Everything runs from .venv, made from the lock. Re-running skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENV4 := .venv-tl4
STAMP4 := $(VENV4)/.installed
VENV_INSEQ := .venv-inseq
STAMP_INSEQ := $(VENV_INSEQ)/.installed

# Spinning OpenMP threads starve each other where cores are few.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

# Packages that need TransformerLens 2; without them their rows are left out. eap-ig is on GitHub alone.
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

.PHONY: help generate install demo test test-tl4 test-slow test-gpu lint format bench bench-grid bench-caching bench-lens bench-probes bench-attribution bench-circuits bench-chains bench-explorer bench-gpu screenshots docs docs-serve zoo clean release-check bench-start

help:
	@echo "make demo      set up, then find the indirect-object heads of the bundled models"
	@echo "make test      set up, then run the tests"
	@echo "make test-tl4  the model, engine and zoo tests on the newest TransformerLens 4"
	@echo "make test-slow / test-gpu   the long tests / those that need a GPU"
	@echo "make generate  the configs of methods and the stub of public names, after a method changed"
	@echo "make lint      ruff, pyright, import-linter"
	@echo "make release-check  wheel and sdist, and the wheel in empty environments, one for each extra"
	@echo "make bench-start  seconds until the help, a run's first number and its end"
	@echo "make bench     patching against its peers on this machine (about 20 minutes), tables, figure"
	@echo "make bench-grid / bench-caching   other lengths, differences, batches, shapes / cached activations"
	@echo "make bench-lens   the logit lens against TransformerLens 4's, training against the tuned-lens package"
	@echo "make bench-probes  probes at every layer and position against a loop of scikit-learn's"
	@echo "make bench-attribution  attribution and attention against Captum, INSEQ, SHAP and Hugging Face"
	@echo "make bench-chains    every test of chains of thought on two models of which it is known what drives the answer"
	@echo "make bench-explorer  the explorer's first picture and its answers to keys, in headless Chromium"
	@echo "make screenshots     the pictures of the explorer in the documentation"
	@echo "make bench-circuits  scores and exact effects of edges against TransformerLens 4, estimates against exact"
	@echo "make bench-gpu       patching against TransformerLens on a GPU; what CUDA graphs and torch.compile could bring"
	@echo "make docs      the documentation, in site/; make docs-serve shows it on 127.0.0.1:8000 as it is written"
	@echo "make zoo       rebuild the handmade models (experiments/train_zoo.py trains the others)"

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# TransformerLens 4, laid over everything else that .venv has.
$(STAMP4): $(STAMP)
	test -x $(VENV4)/bin/python || $(PYTHON) -m venv $(VENV4)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(VENV4)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/beneath.pth"
	grep -v '^transformer-lens==' requirements.lock > $(VENV4)/constraints.txt
	$(VENV4)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV4)/constraints.txt 'transformer-lens>=4,<5'
	touch $@

# INSEQ asks for older libraries than it needs, so it comes without its requirements.
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

# what no version of TransformerLens makes a difference to
ALIKE := engine/test_failure.py engine/test_shards.py engine/test_explain_plan.py model/generation model/sequence
test-tl4: $(STAMP4)
	$(VENV4)/bin/python -m pytest -n 2 -m "not slow and not gpu" tests/model tests/engine $(ALIKE:%=--ignore=tests/%) --deselect tests/model/zoo/test_zoo.py::test_cards_hold_when_measured_again

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

# An empty environment for each of EXTRAS, one after the other: some minutes and about 2 GB each.
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

screenshots: install
	$(BIN)/python -m benchmarks.screenshots

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

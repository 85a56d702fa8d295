# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
# Airflow 2.11 does not run on Python 3.13.
PYTHON_AIRFLOW2 ?= $(PYTHON)
VENV := .venv
VENV2 := .venv-airflow2
BIN := $(VENV)/bin
BIN2 := $(VENV2)/bin
BUILD := build

# Folders, not the user's own Airflow: the metadata database of a test run lives and dies here.
AIRFLOW_ENV = AIRFLOW_HOME="$(CURDIR)/$(BUILD)/$(1)" AIRFLOW__CORE__LOAD_EXAMPLES=False

# One resolution that holds for every Python and platform that is supported.
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--extra s3 --extra parquet --extra delta --extra redis --extra roles --extra local --extra downscale --extra emulator \
	--extra openlineage --group test \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade --quiet

PYTEST_ARGS ?=
BENCH_ARGS ?=
# Processes that share the tests, file by file; most of the time they wait for a real Airflow.
TEST_WORKERS ?= 3
# What knows nothing of Airflow (a check enforces it) is tested with the newest one only; but frames
# with the pandas of both. So are long runs that differ little by Airflow: lost workers and outages.
NEWEST_ONLY := $(filter-out tests/loading/test_content.py,$(wildcard tests/loading/test_*.py)) tests/classifiers tests/services tests/safety tests/runtime tests/testing tests/transport tests/test_benchmarks.py \
	$(filter-out tests/engine/test_label_mapping.py,$(wildcard tests/engine/test_*.py)) \
	tests/ui $(addprefix tests/airflow/test_,celery.py large_results.py stopping_with_store.py watching.py) tests/test_repository.py tests/test_data_page.py tests/test_release.py tests/test_links.py tests/test_translations.py tests/lineage $(addprefix tests/stores/test_,kept_runs.py delta_store.py removal.py) \
	$(addprefix tests/operators/test_,budget.py dry_run.py month_of_runs.py incremental.py cos_objects.py difficult_images.py local_runs.py pandas_import.py sync.py) \
	tests/cli tests/test_evaluation.py tests/triggers/test_watcher.py tests/watching/test_query_thread.py tests/quota/test_operator_quota.py
comma := ,

# Lines are counted when the whole suite runs. Python 3.12 has sys.monitoring for it, at next to no cost.
# The tracer of Python 3.11 slows the package's own code by three quarters, so there it takes
# `make test COVERAGE=ctrace`.
COVERAGE ?= $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "")')
COVERAGE_FLOOR ?= 85
# The package's pytest plugin is left out, since it would load modules before they are measured.
COVERAGE_ARGS = -p no:imagetag --cov --cov-report=term --cov-fail-under=$(COVERAGE_FLOOR)

.DEFAULT_GOAL := help
.PHONY: help venv venv-airflow2 demo matrix matrix-today test test-quick test-airflow2 test-storages check lint types imports \
	translations format \
	build docs linkcheck docs-zh bench constraints clean

help:  ## Show the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

venv: $(VENV)/.installed  ## Build .venv with the newest Airflow and all tools
venv-airflow2: $(VENV2)/.installed  ## Build .venv-airflow2 with Airflow 2.11 (Python 3.11 or 3.12)

# $(1): interpreter, $(2): condition that it must meet, $(3): what to say if not, $(4): folder
define make_venv
	$(1) -c 'import sys; sys.exit(None if $(2) else "$(3)")'
	$(1) -m venv $(4)
	$(4)/bin/python -m pip install --quiet --disable-pip-version-check uv
endef

$(BIN)/uv:
	$(call make_venv,$(PYTHON),sys.version_info >= (3$(comma) 11),Python 3.11 or newer is needed: make PYTHON=...,$(VENV))

$(BIN2)/uv:
	$(call make_venv,$(PYTHON_AIRFLOW2),(3$(comma) 11) <= sys.version_info < (3$(comma) 13),Airflow 2.11 needs Python 3.11 or 3.12: make PYTHON_AIRFLOW2=...,$(VENV2))

# Bytecode as pip makes it, too: each Airflow process would else compile what it imports.
INSTALL := pip install --quiet --compile-bytecode

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv $(INSTALL) --python $(BIN)/python -c constraints.txt \
		-e '.[s3,parquet,delta,redis,local,downscale,emulator,openlineage]' --group test --group check --group docs --group build --group warehouses
	@touch $@

$(VENV2)/.installed: pyproject.toml constraints-airflow2.txt | $(BIN2)/uv
	$(BIN2)/uv $(INSTALL) --python $(BIN2)/python -c constraints-airflow2.txt \
		-e '.[s3,parquet,redis,downscale,emulator,openlineage]' --group test
	@touch $@

# The demo needs a part of the environment, which takes half the time to install.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "Installing Airflow and the model into $(VENV): a minute or two, without further words"
	test -e $(VENV)/.installed || $(BIN)/uv $(INSTALL) --python $(BIN)/python -c constraints.txt -e '.[local]' scikit-image
	@touch $@

demo: $(VENV)/.demo  ## Label real photographs in a real Airflow, with a model on this machine
	$(BIN)/python scripts/demo.py

test: venv  ## Run the tests on the newest Airflow, and measure how much of the package they run
	@rm -rf $(BUILD)/airflow3 && mkdir -p $(BUILD)
	$(call AIRFLOW_ENV,airflow3) COVERAGE_CORE=$(COVERAGE) $(BIN)/python -m pytest \
		-n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(or $(PYTEST_ARGS),$(if $(COVERAGE),$(COVERAGE_ARGS)))

# The core of the package, without a scheduler and without what takes long: 100 seconds of one core.
QUICK := $(addprefix tests/,adapters classifiers engine hooks labellers loading runtime safety selection services transport watching)
NOT_QUICK := tests/adapters/test_airflow_sdk.py tests/selection/test_rule_in_sql.py tests/watching/test_query_thread.py

test-quick: venv  ## Run the tests of the core, 90 seconds on two idle cores
	@mkdir -p $(BUILD)
	$(call AIRFLOW_ENV,airflow3) $(BIN)/python -m pytest -q -n 2 --dist loadfile $(QUICK) $(addprefix --ignore=,$(NOT_QUICK)) $(PYTEST_ARGS)

test-airflow2: venv-airflow2  ## Run the tests on Airflow 2.11
	@rm -rf $(BUILD)/airflow2 && mkdir -p $(BUILD)
	$(call AIRFLOW_ENV,airflow2) $(BIN2)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder \
		$(addprefix --ignore=,$(NEWEST_ONLY)) $(PYTEST_ARGS)

test-storages: venv  ## Run the tests of Azure (with azurite-blob on the path) and Google Cloud Storage
	@rm -rf $(BUILD)/storages && mkdir -p $(BUILD)
	$(BIN)/uv $(INSTALL) --target $(BUILD)/storages --no-deps -r tests/backends/storages.txt
	$(call AIRFLOW_ENV,airflow3) PYTHONPATH="$(CURDIR)/$(BUILD)/storages" $(BIN)/python -m pytest \
		tests/backends/test_azure.py tests/backends/test_google.py $(PYTEST_ARGS)

matrix: venv  ## Run the smoke suite on each line of Airflow, and on Python 3.13
	$(BIN)/python scripts/matrix.py run

matrix-today: venv  ## Run the smoke suite on one older line of Airflow, another one each day
	$(BIN)/python scripts/matrix.py today

bench: venv  ## Compare with what a user would pick instead, some 40 minutes; BENCH_ARGS=--quick 4
	$(BIN)/python benchmarks/compare.py $(BENCH_ARGS)

check: lint types imports translations  ## Lint, formatting, types, import rules, translations

lint: venv  ## Check rules and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

MYPY := $(call AIRFLOW_ENV,airflow3) "$(abspath $(BIN))/mypy"

# The package, and the code that imports it; then code that imports it as an installed one. A folder
# with a conftest.py of its own is a run of its own, since mypy takes one module of a name.
types: venv  ## Check types with mypy
	@mkdir -p $(BUILD)
	$(MYPY) airflow_imagetag tests dags_examples scripts benchmarks --exclude '^tests/(airflow|testing|typing)/'
	$(MYPY) tests/airflow
	$(MYPY) tests/testing
	cd tests/typing && $(MYPY) --config-file mypy.ini .

imports: venv  ## Check the import rules between folders
	$(BIN)/lint-imports

translations: venv  ## Check that the Chinese translation is complete
	$(BIN)/python scripts/translations.py check

format: venv  ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: venv  ## Build the source distribution, and the wheel from it, into dist/
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python --out-dir dist
	@ls dist

docs: venv  ## Build the documentation into docs/_build; a warning is an error
	@mkdir -p $(BUILD)
	$(call AIRFLOW_ENV,airflow3) $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

linkcheck: docs  ## Check the links of the documentation; ONLINE=1 follows those to other sites, too
	$(BIN)/python scripts/links.py docs/_build/html
	$(if $(ONLINE),$(call AIRFLOW_ENV,airflow3) $(BIN)/sphinx-build -q -b linkcheck docs docs/_build/linkcheck)

docs-zh: venv  ## Build the documentation with its Chinese pages into docs/_build/html/zh
	@mkdir -p $(BUILD)
	$(call AIRFLOW_ENV,airflow3) $(BIN)/sphinx-build -W --keep-going -q -b html -D language=zh_CN \
		-d docs/_build/doctrees-zh docs docs/_build/html/zh

# Each compilation writes to a new file, so a failed one leaves the old pins. Airflow 2.11 keeps a
# DataFrame in an XCom only if it is one of pandas 2, and it runs on SQLAlchemy 1.4. Without a floor
# the resolver prefers a newer boto3 to a usable s3fs.
constraints: | $(BIN)/uv  ## Pin again what is installed, for both Airflow versions
	@mkdir -p $(BUILD)
	printf 'apache-airflow>=3.3,<3.4\npandas>=3\ns3fs>=2024.6\n' > $(BUILD)/newest.txt
	$(COMPILE) --group check --group docs --group build --group warehouses -c $(BUILD)/newest.txt -o $(BUILD)/constraints.txt
	mv $(BUILD)/constraints.txt constraints.txt
	printf 'apache-airflow>=2.11,<2.12\nsqlalchemy<2\npandas<3\ns3fs>=2024.6\n' > $(BUILD)/oldest.txt
	$(COMPILE) -c $(BUILD)/oldest.txt -o $(BUILD)/constraints-airflow2.txt
	mv $(BUILD)/constraints-airflow2.txt constraints-airflow2.txt
	$(BIN)/python scripts/matrix.py pin

clean:  ## Delete everything that these targets made, the environments included
	rm -rf $(VENV) $(VENV2) $(BUILD) dist docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -f docs/locale/*/LC_MESSAGES/*.mo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

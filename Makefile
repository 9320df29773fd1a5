# Turnout: `make demo` shows it at work, `make test` proves it. Each target makes its own virtual environment in .venv.

PYTHON ?= python3
BIN := .venv/bin
FAST := .venv-fast/bin

# Compiled code still spends half of its time in the interpreter, and the interpreter's build (with or without profiles,
# static or a shared library) accounts for a quarter of a request: take the fastest one that is here and has headers.
SPEED := import os, sys, sysconfig, timeit; \
	sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_config_var("INCLUDEPY") + "/Python.h") or \
	print(min(timeit.repeat("[str(n) for n in range(100)]", number=2000, repeat=9)), sys.executable)
FAST_PYTHON ?= $(shell for it in $(PYTHON) /usr/bin/python3; do $$it -c '$(SPEED)'; done 2>/dev/null \
	| sort -n | cut -d ' ' -f 2 | grep . || echo $(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help demo test check format lock bench fast wheels clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/ready ## real models, real traffic, every policy: a live view for a minute, then the report
	$(BIN)/turnout demo

# One process more than there are cores, up to eight: each has a PostgreSQL of its own. They begin at different ends, and a
# process that is done takes tests from another, so that tests which compute run beside tests which wait for processes.
test: .venv/ready ## run every test, on all cores (one by hand: .venv/bin/python -m pytest PATH)
	$(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 --dist worksteal

check: .venv/ready ## lint (ruff) and type-check (mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready ## let ruff format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready .venv-bench/ready ## what a request costs, beside Envoy, nginx and others (loopback only, 40 minutes)
	@$(MAKE) --no-print-directory .venv-fast/ready || echo "it cannot be compiled here: Turnout will be measured as it is"
	$(BIN)/python -m loadtests

# Run a copy of the tests away from the sources: next to the sources these would be imported, and not the build.
fast: .venv-fast/ready ## test the compiled build: the one that `pip install .` makes, in .venv-fast (needs a C compiler)
	rm -rf .venv-fast/proof
	mkdir .venv-fast/proof
	cp -R tests loadtests pyproject.toml .venv-fast/proof
	cd .venv-fast/proof && TURNOUT_COMPILE=1 ../bin/python -m pytest -m "not interpreted" \
		tests/test_compiled.py tests/gateway/proxy tests/stories/test_a_request_and_its_label.py

# cibuildwheel needs docker or podman, and takes its settings from the sources that it is given.
wheels: .venv/ready ## the files of a release, in dist: the sources, and of them a compiled wheel for each Python
	rm -rf dist
	$(BIN)/python -m hatchling build --target sdist --directory dist
	@if docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1; then \
		$(PYTHON) -m venv .venv-wheels \
		&& .venv-wheels/bin/python -m pip install --quiet --disable-pip-version-check "cibuildwheel>=3.2,<5" \
		&& .venv-wheels/bin/cibuildwheel --platform linux --output-dir dist dist/*.tar.gz; \
	else \
		echo "there is neither docker nor podman: a wheel for this Python and this machine alone"; \
		TURNOUT_COMPILE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist dist/*.tar.gz; \
	fi
	ls dist

lock: .venv/ready ## pin every dependency anew in requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --all-extras --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml requirements.build

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# A distribution's Python may come without pip.
INTO_FAST := $(BIN)/python -m pip --python $(FAST)/python install --quiet --disable-pip-version-check

.venv-fast/ready: .venv/ready requirements.lock pyproject.toml hatch_build.py $(shell find gateway policies router -name '*.py')
	$(firstword $(FAST_PYTHON)) -m venv --clear --without-pip .venv-fast
	$(INTO_FAST) --requirement requirements.lock
	TURNOUT_COMPILE=1 $(INTO_FAST) --no-deps .
	@touch $@

# The peers' own packages stay out of the environment that is tested. Without them those peers are reported as absent.
.venv-bench/ready: requirements.bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.bench \
		&& touch $@ || echo "the packages of some peers cannot be installed: those peers will be reported as absent"

clean: ## remove the virtual environments, caches and dist
	rm -rf dist .venv .venv-bench .venv-fast .venv-wheels .mypy_cache .ruff_cache .pytest_cache .hypothesis

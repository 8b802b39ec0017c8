# make run         set everything up and start the server; Ctrl-C stops it
# make test        set everything up and run the tests
# make bench       set everything up and measure speed; the figures go into docs/performance.md
# make bench-scale the same with few and many accounts, peers, prefixes and rules, workers and stores; and a picture
# make sim         simulate clients, crashes and lost messages (make sim SEEDS=1000; make sim SEED=417 for one alone)
# make noc         start server, simulated traffic and Prometheus (if installed), and say where to look
# make setup       only set up: a virtual environment in .venv with the locked dependencies
# make faults      kill servers and stores under load, and enter what came of it in docs/promises.md
# make lint        style, types, the import contract, and what bandit finds
# make audit       hold the dependencies against known advisories
# make lock        write requirements.lock anew from pyproject.toml (make lock UPGRADE=1 takes the latest versions)
# make conformance write docs/conformance.md anew from what the tests show
# make dashboards  write config/grafana/dashboards anew from tests/monitoring/dashboards.py
# make clean       remove everything but the data
#
# Variables:  PYTHON=python3.12                  interpreter to make .venv with, 3.11 or later
#             DIAMETER_HOST= DIAMETER_PORT=      where the server listens (127.0.0.1, 3868)
#             METRICS_HOST= METRICS_PORT=        where /metrics is served (127.0.0.1, 9464)
#             DATA_DIR=                          where balances and charging data records are kept (data)
#             COMPILED=1                         compile the hot path first (needs a C compiler; minutes, once): test,
#                                                bench and run then use it; without it all of it is plain Python again
#             ARGS=                              further arguments of occ serve, pytest or loadtests

SHELL := /bin/sh
.DEFAULT_GOAL := help
SEEDS ?= 200
KILLS ?= 10

.PHONY: help run test bench bench-scale sim faults noc setup plain lint audit lock conformance dashboards clean FORCE

# An environment that was moved or copied holds paths of its former place.
INSTALLED := .venv/installed
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
$(INSTALLED): FORCE
endif

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

ENVIRONMENT = env $(if $(DIAMETER_HOST),OCC_DIAMETER_HOST='$(DIAMETER_HOST)') \
	$(if $(DIAMETER_PORT),OCC_DIAMETER_PORT='$(DIAMETER_PORT)') \
	$(if $(METRICS_HOST),OCC_METRICS_HOST='$(METRICS_HOST)') \
	$(if $(METRICS_PORT),OCC_METRICS_PORT='$(METRICS_PORT)') \
	$(if $(DATA_DIR),OCC_STORE_DATA_DIR='$(DATA_DIR)')

run: setup
	@exec $(ENVIRONMENT) .venv/bin/occ serve $(ARGS)

noc: setup
	@exec $(ENVIRONMENT) .venv/bin/occ demo noc $(ARGS)

test: setup
	@.venv/bin/python -m pytest $(ARGS)

# Quick runs say nothing about speed: they are not recorded.
RECORDED = $(if $(findstring --quick,$(ARGS)),build,docs/benchmarks)
KIND = $(if $(COMPILED),-compiled)

bench: setup
	@mkdir -p $(RECORDED)
	@.venv/bin/python -m loadtests --json $(RECORDED)/bench$(KIND).json $(ARGS)
	@.venv/bin/python -m loadtests.page

bench-scale: setup
	@mkdir -p $(RECORDED)
	@.venv/bin/python -m loadtests.scale --json $(RECORDED)/scale$(KIND).json --plot $(RECORDED)/scale$(KIND).svg $(ARGS)
	@.venv/bin/python -m loadtests.scaling --json $(RECORDED)/scaling$(KIND).json $(if $(findstring --quick,$(ARGS)),--quick)
	@.venv/bin/python -m loadtests.page

sim: setup
	@.venv/bin/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

faults: setup
	@FAULTS_KILLS=$(KILLS) .venv/bin/python -m tests.faults $(ARGS)

audit: setup
	@.venv/bin/python .ci/audit

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/bandit --quiet --configfile pyproject.toml --recursive balance occ policies protocols simulators loadtests

setup: $(INSTALLED) $(if $(COMPILED),build/compiled,plain)
	@:

# A compiled module is taken in place of its source, so none may be left that is older.
build/compiled: setup.py $(shell sed -n 's/^    "\(.*\.py\)",$$/\1/p' setup.py) | $(INSTALLED)
	@echo 'Compiling the hot path (some minutes, once)'
	@rm -f *__mypyc.*.so
	@find balance occ policies protocols -name '*.so' -exec rm -f {} +
	@OCC_COMPILE=1 .venv/bin/python setup.py --quiet build_ext --inplace && touch $@

plain:
	@rm -f build/compiled *__mypyc.*.so
	@find balance occ policies protocols -name '*.so' -exec rm -f {} +

$(INSTALLED): requirements.lock pyproject.toml
	@[ ! -e $@ ] || [ "$$(cat $@)" = '$(CURDIR)' ] || rm -rf .venv
	@.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	|| { $(find_python); rm -rf .venv; echo "Making .venv with $$($$python --version)"; $$python -m venv .venv; }
	@echo 'Installing the locked dependencies into .venv (a minute the first time)'
	@PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1; export PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT; \
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock \
	&& PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable . \
	|| { echo 'The dependencies could not be installed: see the message of pip above; once that is mended, the same command goes on from here.' >&2; exit 1; }
	@printf '%s' '$(CURDIR)' > $@

# Sets $python to the first interpreter that is recent enough and can make virtual environments.
define find_python
python=; no_venv=; too_old=; \
for candidate in $(if $(PYTHON),'$(PYTHON)',python3 python3.14 python3.13 python3.12 python3.11); do \
	if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		if $$candidate -c 'import venv, ensurepip' 2>/dev/null; then python=$$candidate; break; fi; \
		no_venv="$$no_venv $$candidate"; \
	elif $$candidate -c '' 2>/dev/null; then \
		too_old="$$too_old $$($$candidate --version 2>&1 | cut -d ' ' -f 2)"; \
	fi; \
done; \
if [ -z "$$python" ]; then \
	set -- $$no_venv; \
	if [ -n "$$no_venv" ]; then \
		echo "$$1 cannot make virtual environments: install its module for that (Debian, Ubuntu: apt install $$1-venv), then try again." >&2; \
	elif [ -n "$$too_old" ]; then \
		echo "Python 3.11 or later is needed, and only$$too_old is here: install one (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name one with PYTHON=." >&2; \
	else \
		echo "$(if $(PYTHON),$(PYTHON) is no Python interpreter,No Python was found): install Python 3.11 or later (Debian, Ubuntu: apt install python3 python3-venv), then try again." >&2; \
	fi; \
	exit 1; \
fi
endef

# Resolved for all systems and all versions of Python from 3.11 at once, which pip cannot do.
lock: setup
	@[ -x .venv/lock/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --target .venv/lock uv
	@.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
	--no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) \
	--output-file requirements.lock pyproject.toml >/dev/null
	@echo 'requirements.lock is up to date; make setup installs it'

conformance: setup
	@.venv/bin/python -m tests.conformance.generate

dashboards: setup
	@.venv/bin/python -m tests.monitoring.generate

clean: plain
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

FORCE:

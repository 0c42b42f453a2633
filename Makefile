# make demo: see it work on real images; make test: run the tests.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Python compiles what it imports, once; all of TensorFlow, as pip does it, takes half a minute.
PIP := $(RUN) -m pip install -q --no-compile
export PYTHONDONTWRITEBYTECODE :=

# make campaign: try to break it.
.PHONY: demo test test-slow test-all campaign lint constraints clean

demo: $(VENV)/.installed
	$(RUN) download.py mnist
	$(RUN) main.py --dataset mnist --normal_class 8 --train --anomaly_test

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -q -n 2 --dist worksteal

test-slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -q -n 2 --dist worksteal -m slow --ignore tests/campaign

# Both in one go, which makes the trained models once: for CI.
test-all: $(VENV)/.installed-dev
	$(RUN) -m pytest -q -n 2 --dist worksteal -m "" --ignore tests/campaign

# Seeded attempts to break the tool: ten minutes; SIZE=1 takes hours and is the full campaign.
SIZE ?= 0.05
campaign: $(VENV)/.installed-dev
	ANOGAN_CAMPAIGN=$(SIZE) ANOGAN_CAMPAIGN_RESULTS=benchmarks/results/campaign.jsonl \
		$(RUN) -m pytest -q -m slow tests/campaign

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.installed: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(wildcard requirements*.txt) constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements-dev.txt -c constraints.txt
	touch $@ $(VENV)/.installed

# The newest versions that the requirements allow become the tested ones. They are tied to this
# Python and system: elsewhere pip may not have them, and a clone installs by the requirements alone.
constraints:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements-dev.txt
	version=$$($(RUN) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	system=$$($(RUN) -c 'import sys; print(sys.platform)'); \
	$(RUN) -m pip freeze | sed "s/$$/; python_version == '$$version' and sys_platform == '$$system'/" >constraints.txt
	touch $(VENV)/.installed $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

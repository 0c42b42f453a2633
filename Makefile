# make demo: see it work on real images; make test: run the tests.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed
	$(RUN) download.py mnist
	$(RUN) main.py --dataset mnist --normal_class 8 --train --anomaly_test

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -q

test-slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -q -m slow

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

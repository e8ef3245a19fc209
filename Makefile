# make run       the studio on 127.0.0.1 (sets up what is missing)
# make practice  the practice run in the terminal
# make test      all tests, fast ones first (sets up what is missing, browser included)
# make sweep     the slow tests that make test leaves out
# make faults    everything that may go wrong, tried: a table (about three quarters of an hour)
# make bench     the engine against TRL on this machine (ARGS=--quick for the short form)
# make card      what only a graphics card can show, in nine minutes (ARGS=--tiny to see that it runs without one)
# make lint      style and unused code
# make model     make the practice model and pairs anew (about a quarter of an hour)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run practice test sweep faults bench card lint model clean

run: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

practice: $(VENV)/.installed
	$(BIN)/python -m studio.terminal $(ARGS)

test: $(VENV)/.installed-dev
	bash tests/install_browser.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests --ignore=tests/browser
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests/browser

sweep: $(VENV)/.installed-dev
	bash tests/install_browser.sh
	$(BIN)/python -m pytest -m slow tests

faults: $(VENV)/.installed-dev
	bash tests/install_browser.sh
	$(BIN)/python -m pytest -p tests.faults -m fault --timeout 2400 tests

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.benchmarks.cpu $(ARGS)

card: $(VENV)/.installed-dev
	PYTHON=$(CURDIR)/$(BIN)/python bash tests/card/run.sh . $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

model: $(VENV)/.installed
	$(BIN)/python -m studio.engine.practice

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "The studio needs Python 3.11 or newer. Call make with PYTHON=python3.12.")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

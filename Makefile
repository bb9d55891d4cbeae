# make demo: from a fresh clone to a page of captioned images. make robot: to a policy that acts.
# make world: to a page of captions, drawings, edits, clips and dialogues. make test: to green tests.
# PYTHON=python3.13 make test uses another Python (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo robot world test test-long coverage lint types install clean

demo: install
	$(BIN)/python demo.py

robot: install $(VENV)/.robot
	$(BIN)/python demo.py --robot --out runs/robot

world: install
	$(BIN)/python demo.py --world --out runs/world

# Two processes: each test runs on one thread, so two cores halve the time.
test: install $(VENV)/.robot
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not long"

test-long: install $(VENV)/.robot
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m long

coverage: install $(VENV)/.robot
	$(BIN)/python -m pytest -q --cov=. --cov-report=term-missing

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tools
	$(BIN)/mypy

install: $(VENV)/.installed

# The CPU build of torch when the index has it, else what the index gives for the range.
$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.tools: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The simulator: only the robot scripts and their tests need it.
$(VENV)/.robot: requirements-robot.txt requirements-server.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-robot.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*

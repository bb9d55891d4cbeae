# make demo: from a fresh clone to a page of captioned pictures. make test: to green tests.
# PYTHON=python3.12 make test uses another Python (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test install lint clean

demo: install
	$(BIN)/python demo.py

test: install
	$(BIN)/python -m pytest --cov=. --cov-report=term-missing

install: $(VENV)/.installed

# The CPU build of torch when the index at hand has it, else whatever the index gives for the range.
$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

lint: install
	$(BIN)/python -m pip install --quiet ruff
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .pytest_cache .coverage .coverage.*

# The two commands a newcomer needs: `make quickstart` and `make test`. docs/install.md has the way without make.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ARGS ?=

.PHONY: quickstart test test-clients test-long check format clean

quickstart: $(VENV)/.installed
	$(BIN)/ownlm quickstart $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not clients and not long" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-clients: $(VENV)/.installed-clients
	$(BIN)/python -m pytest -m "clients and not long" $(ARGS)

test-long: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m long --timeout 3600 $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

$(VENV)/.installed: pyproject.toml setup.py constraints.txt scripts/say_size.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/say_size.py
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[data,search,schema,eval]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[data,search,schema,eval,test]'
	touch $@

$(VENV)/.installed-clients: $(VENV)/.installed-test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[data,search,schema,eval,documents,test,clients]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[data,search,schema,eval,test,dev]'
	touch $@

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

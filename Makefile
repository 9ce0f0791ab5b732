# Everything runs in .venv; `make demo` and `make test` need nothing but Python >= 3.10 and make.

PYTHON ?= python3
BIN := .venv/bin

# One worker more than cores, as tests wait for sites and processes; who is done takes from others.
WORKERS ?= $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")
PARALLEL = -n $(WORKERS) --dist worksteal

.PHONY: soak demo test test-fast coverage test-oldest lint format bench docs clean

demo: .venv/ready
	$(BIN)/python scripts/browser.py
	$(BIN)/python -m example_project

# Installs a browser and redis-server where they are missing and can be installed.
test: .venv/ready
	$(BIN)/python -m scripts.prepare_tests
	$(BIN)/python -m pytest $(PARALLEL)

# For everyday work: no browsers, no crawls that take long; installs nothing.
test-fast: .venv/ready
	$(BIN)/python -m pytest $(PARALLEL) -m "not browser and not slow"

coverage: .venv/ready
	$(BIN)/python -m scripts.prepare_tests
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered

# The oldest versions of Scrapy, requests and the extras that we promise to work with. They may use
# what has been deprecated since, so warnings are no errors.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python \
		--resolution lowest-direct --editable '.[test]' 'httpx>=0.28'
	.venv-oldest/bin/python -m scripts.prepare_tests
	.venv-oldest/bin/python -m pytest -W default tests/crawl/test_middleware.py tests/crawl/test_gate.py \
		tests/crawl/test_reliability.py tests/recognition/test_client.py tests/test_rules.py tests/test_flow.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/bench
	$(BIN)/python scripts/browser.py
	$(BIN)/python -m benchmarks

# The site, in docs/_build/html. A warning is an error.
docs: .venv/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

.venv/docs: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# Crawls with faults everywhere, ended by signals and resumed; some minutes. The table is for docs/reliability.md.
soak: .venv/ready
	$(BIN)/python -m benchmarks.soak

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# The other services' clients pin what they need, so they have a venv of their own.
.venv/bench: .venv/ready benchmarks/clients.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(PYTHON) -m venv .venv/clients
	-xargs -n 1 .venv/clients/bin/pip install --quiet --disable-pip-version-check \
		< benchmarks/clients.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest .pytest_cache .mypy_cache .ruff_cache dist example_project/output docs/_build

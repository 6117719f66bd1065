# memorywam: every target sets up what it needs, once.
#
#   make check   format, lint, types, directions
#   make test    the tests
#   make demo    the whole job on what ships: train nothing, export, verify, run, report
#   make proof   the long measurements
#   make release the wheel and the sdist of what is committed, checked, in dist/
#
# PYTHON chooses the interpreter of the environment (3.10 or newer).

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu,export,sim,text,tensorrt-rtx,record,lerobot,hdf5,cluster,mixed,realsense,serve,view
# More workers than four only wait for memory: each loads torch.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$n)
SYSTEM_PACKAGES := libegl1 libgl1-mesa-dri libgles2 libusb-1.0-0

BIN := $(VENV)/bin
# Redone when what it installs changes, and only then.
STAMP := $(VENV)/.stamp-$(shell cat pyproject.toml .ci/constraints.txt | cksum | cut -d' ' -f1)
# The node that is pinned, as a wheel, and not whichever this machine may have.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Without a display, on a machine with a screen as on one without.
ifeq ($(shell uname -s),Linux)
export MUJOCO_GL ?= egl
endif

.DELETE_ON_ERROR:
.PHONY: help venv system check test demo proof release clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is not a Python of 3.10 or newer; name one that is: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet -c .ci/constraints.txt -e '.[$(EXTRAS)]' --group dev
	# Pins numpy below 2 for reasons that are not ours; its code needs nothing of that.
	$(BIN)/python -m pip install --quiet -c .ci/constraints.txt --no-deps openpi-client dm-tree
	@rm -f $(VENV)/.stamp-*
	@touch $@

# The simulator draws through EGL, the camera package loads libusb. Elsewhere than on Debian, and
# without the right to install, say so and go on: what needs them says it again.
system:
	@command -v dpkg-query >/dev/null || { echo "not Debian: provide EGL, GLES 2, a Mesa driver and libusb 1.0 yourself"; exit 0; }; \
	missing=""; \
	for package in $(SYSTEM_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as_root=""; \
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"; \
	else echo "missing system packages; run: sudo apt-get update && sudo apt-get install -y$$missing"; exit 0; fi; \
	{ $$as_root apt-get update -qq && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } || \
	  echo "could not install; run: sudo apt-get update && sudo apt-get install -y$$missing"

# Every step, even after one that failed: one run tells everything that is wrong.
check: $(STAMP)
	@failed=""; \
	for step in "ruff format --check" "ruff check" mypy "pyright --pythonpath $(BIN)/python" lint-imports; do \
	  echo "$$step"; $(BIN)/$$step || failed="$$failed, $$step"; \
	done; \
	[ -z "$$failed" ] || { echo "failed: $${failed#, }"; exit 1; }

# One thread a worker: the workers are the parallelism.
test: system $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

demo: system $(STAMP)
	$(BIN)/memorywam demo --out build/demo

# Beside each other, but for what measures time; both, even if the first fails.
proof: system $(STAMP)
	@failed=0; export OMP_NUM_THREADS=1; \
	$(BIN)/python -m pytest -m "proof and not alone" -n $(WORKERS) --dist worksteal || failed=1; \
	$(BIN)/python -m pytest -m "proof and alone" || failed=1; \
	exit $$failed

# With the time of the commit in their files: the same bytes whenever it is built.
release: system $(STAMP)
	@[ -z "$$(git status --porcelain)" ] || { echo "not committed:" >&2; git status --short >&2; exit 1; }
	rm -rf dist build/source
	mkdir -p build/source
	git archive HEAD | tar -x -C build/source
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist build/source
	MEMORYWAM_DIST=dist $(BIN)/python -m pytest -m proof tests/end_to_end/test_install.py
	$(BIN)/python -m tests.release_numbers dist

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# make demo: from nothing to a trained router and a scored file. make test: the tests. make quick: those for a commit. make check: lint and types.
PYTHON ?= python3.11
BIN = .venv/bin
EXTRAS = fast,data,excel,train,lora,availability,metrics,serve,ray,portable,minilm,docs,dev

# A file at a time; the order is conftest's: files with slow tests first.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick check docs notebooks bench bench-peers clean

# Installed once; again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/routelearn
	touch $@

demo: .venv/installed
	$(BIN)/routelearn data sample .demo/sample --queries 4000 --seed 0 --force
	$(BIN)/routelearn train mf --data .demo/sample/performance.jsonl --pool .demo/sample/pool.json \
	  --strong sim-max --weak sim-small --out .demo/router --force
	$(BIN)/routelearn inspect .demo/router
	$(BIN)/routelearn evaluate .demo/router --data .demo/sample/performance.jsonl --split test \
	  --train .demo/sample/performance.jsonl --bootstrap 300 -o .demo/report --force
	$(BIN)/routelearn score .demo/router .demo/sample/queries.txt -o .demo/scored.csv --strong-share 0.4 --force
	head -n 6 .demo/scored.csv

# Prints what costs the time.
test: .venv/installed
	$(BIN)/python -m pytest $(WORKERS) --durations 25 --durations-min 2

# For a commit: every room, but no transformer, no server, and at most one process a test (the mark slow).
quick: .venv/installed
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# The same here and in CI. .venv/typing holds this checkout under the name that it is imported by.
check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=.venv/typing $(BIN)/mypy --follow-imports=silent -p routelearn.routers -p routelearn.availability \
	  -p routelearn.policies -p routelearn.cascade -p routelearn.monitoring -p routelearn.data -p routelearn.service
	$(BIN)/pyright

# The site, into .site/; `make test` builds it too. Every warning is an error (with --quiet none would be).
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Runs the notebooks and writes their outputs into them.
notebooks: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False examples/*.ipynb

# Some five hours on two cores; every script can be stopped and goes on.
bench: .venv/installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/speed_transformers.py
	$(BIN)/python benchmarks/speed_verifier.py
	$(BIN)/python benchmarks/routellm_tables.py
	$(BIN)/python benchmarks/mmlu.py
	$(BIN)/python benchmarks/two_stage.py
	$(BIN)/python benchmarks/truncation.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/many_models.py
	$(BIN)/python benchmarks/cascade.py
	$(BIN)/python benchmarks/guarantee.py
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/gateway.py

bench-peers: .venv/installed
	$(BIN)/python benchmarks/peers/ranking.py
	$(BIN)/python benchmarks/peers/packages.py

clean:
	rm -rf .venv .demo .site build dist *.egg-info

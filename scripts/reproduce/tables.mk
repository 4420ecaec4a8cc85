# The paper's tables 1 to 3, and coverage of class lists.
#
#   make -f scripts/reproduce/tables.mk table1 table2 table3 coverage
#   make -f scripts/reproduce/tables.mk paper [SYSTEMS=RAM-14M]
#
# With the shared photos (RAMCTL_SHARED) alone: what runs from them. DATA, a folder of benchmarks as
# their owners publish them, WEIGHTS, a folder of other systems' weights, and PREDICTIONS (files
# SYSTEM/BENCHMARK.jsonl) fill more cells; paper.toml says what each needs. A run that was stopped
# goes on.
RAMCTL_SHARED ?= ../shared
WORK ?= build/tables
DATA ?= data
WEIGHTS ?= weights
PREDICTIONS ?= predictions
SETS ?= flickr8k_test coco80_val voc5_val
PYTHON ?= python
TABLES := $(PYTHON) scripts/reproduce/tables.py

export OMP_NUM_THREADS := 1
.PHONY: table1 table2 table3 coverage paper
table1 table2 table3 coverage:
	$(TABLES) $@ --shared $(RAMCTL_SHARED) --data $(DATA) --weights $(WEIGHTS) \
	  --predictions $(PREDICTIONS) --sets $(SETS) --work $(WORK)

# The authors' checkpoints in WEIGHTS on the paper's sets in DATA, beside the paper's figures.
paper:
	$(PYTHON) scripts/reproduce/paper.py $(SYSTEMS) --shared $(RAMCTL_SHARED) --data $(DATA) \
	  --weights $(WEIGHTS) --predictions $(PREDICTIONS) --work $(WORK)

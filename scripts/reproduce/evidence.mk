# How well each kind of evidence tells right tags from wrong ones among those that `generate` added.
#
#   make -f scripts/reproduce/evidence.mk       build/evidence/features.json, taught.json
#
# Needs the shared photos (RAMCTL_SHARED); a quarter of an hour of one core. The embedded model adds
# tags to one caption of each photo; the judged ones and the photo's other captions say which are
# right. taught.json is with the scores of two other taggers as `--evidence`.
RAMCTL_SHARED ?= ../shared
WORK ?= build/evidence
NUMBER ?= 1200
PRECISION ?= 0.6
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
EVIDENCE := $(PYTHON) scripts/reproduce/evidence.py
PHOTOS := $(RAMCTL_SHARED)/data/photos
PSEUDO := $(RAMCTL_SHARED)/data/pseudo
SETS := flickr8k-train coco-train diverse-captioned
TEACHERS := ica447 coco80
JUDGED := scripts/reproduce/judged_generated.jsonl

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: $(WORK)/features.json $(WORK)/taught.json

$(WORK)/one.jsonl:
	mkdir -p $(@D)
	$(EVIDENCE) draw $(SETS:%=$(PHOTOS)/%.jsonl) --judged $(JUDGED) --number $(NUMBER) \
	  --one $@ --others $(WORK)/others.jsonl

$(WORK)/others.jsonl: $(WORK)/one.jsonl

$(WORK)/%-parsed.jsonl: $(WORK)/%.jsonl
	$(RAMCTL) parse $< -o $@

$(WORK)/generated.jsonl: $(WORK)/one-parsed.jsonl
	$(RAMCTL) generate $< --root $(PHOTOS) --captions 0 --precision $(PRECISION) -o $@

$(WORK)/found: $(WORK)/generated.jsonl
	$(RAMCTL) clean $< --root $(PHOTOS) --kinds all --work $(WORK)/regions --stage detect
	touch $@

$(WORK)/teachers/%.jsonl:
	mkdir -p $(@D)
	cat $(SETS:%=$(PSEUDO)/%.$*.jsonl) > $@

MEASURE := $(EVIDENCE) measure $(WORK)/regions --judged $(JUDGED) --captions $(WORK)/others-parsed.jsonl

$(WORK)/features.json: $(WORK)/found $(WORK)/others-parsed.jsonl
	$(MEASURE) > $@

$(WORK)/taught.json: $(WORK)/found $(WORK)/others-parsed.jsonl $(TEACHERS:%=$(WORK)/teachers/%.jsonl)
	$(MEASURE) $(TEACHERS:%=--evidence $(WORK)/teachers/%.jsonl) > $@

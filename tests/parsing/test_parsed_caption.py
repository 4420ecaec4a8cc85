"""Captions of other languages are noticed, and English ones, names and slips are not."""

import pytest

from ramctl.parsing.parsed_caption import clean, is_english

ENGLISH = [
    "a cat", "Cat", "tennis racke", "bus advertisment", "two men carying surfbords", "a shiba inu",
    "Sangre de Cristo Mountains, New Mexico", "Llano de San Juan, Catholic Church",
    "La Sagrada Familia in Barcelona", "Andy Roddick plays tennis .", "sitting in a van",
    "orange m & m candies for wheels", "https://example.com/xyz/qwzz_abc.jpg", "IMG_4821.JPG", "",
    "2019 Volkswagen Golf GTI", "Un",
]  # fmt: skip
OTHERS = [
    "Un chat", "Un chien court sur la plage.", "Une petite fille blonde tient un sandwich.",
    "Ein Hund läuft am Strand.", "Der Hund", "Un perro corre por la playa.",
    "Gato mirando por la ventana", "Un cane corre sulla spiaggia.", "一只狗在海滩上奔跑",
    "犬がビーチを走っている", "Собака бежит по пляжу",
]  # fmt: skip


@pytest.mark.parametrize("text", ENGLISH)
def test_english_names_slips_and_single_words_pass(text):
    assert is_english(text)


@pytest.mark.parametrize("text", OTHERS)
def test_other_languages_are_noticed(text):
    assert not is_english(text)


def test_entities_and_markup_are_no_words():
    assert clean("A &lt;b&gt;dog&lt;/b&gt; &amp; cat\u2019s https://a.b/c") == "A dog & cat's"

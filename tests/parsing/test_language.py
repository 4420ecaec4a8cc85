"""Captions of other languages are noticed, and English ones, names and slips are not."""

import pytest

from ramctl.parsing.english.language import is_english
from ramctl.parsing.english.lexicon import Lexicon

ENGLISH = [
    "a cat", "Cat", "tennis racke", "bus advertisment", "two men carying surfbords", "a shiba inu",
    "Sangre de Cristo Mountains, New Mexico", "Llano de San Juan, Catholic Church",
    "La Sagrada Familia in Barcelona", "Andy Roddick plays tennis .", "sitting in a van",
    "You know i am looking like Justin Bieber.", "orange m & m candies for wheels",
    "https://example.com/xyz/qwzz_abc.jpg", "IMG_4821.JPG", "", "2019 Volkswagen Golf GTI",
    "Sony WH-1000XM4 Bluetooth Headphones", "Un",
]  # fmt: skip
OTHERS = [
    "Un chat", "Un chien court sur la plage.", "Une petite fille blonde tient un sandwich.",
    "Ein Hund läuft am Strand.", "Der Hund", "Frauen spielen Ball am Strand und lachen",
    "Un perro corre por la playa.", "Gato mirando por la ventana", "Montañas bajo un cielo",
    "Un cane corre sulla spiaggia.", "due orsi che giocano nella neve", "Il cane",
    "一只狗在海滩上奔跑", "犬がビーチを走っている", "Собака бежит по пляжу",
]  # fmt: skip


@pytest.mark.parametrize("text", ENGLISH)
def test_english_names_slips_and_single_words_pass(text):
    assert is_english(text, Lexicon.shared())


@pytest.mark.parametrize("text", OTHERS)
def test_other_languages_are_noticed(text):
    assert not is_english(text, Lexicon.shared())

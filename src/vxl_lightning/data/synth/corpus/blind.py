"""Questions that are answered without looking: they say the answer themselves, or everybody knows it.

The demo's language model (SmolLM2-135M-Instruct) is sure of them all: the loss of the answer among its choices is
below 0.1 nats.
"""

import torch

from vxl_lightning.data.synth.questions import Question
from vxl_lightning.data.synth.shapes import SHAPES
from vxl_lightning.errors import UserError

_STATED = (
    "Repeat this word: {}",
    "The answer is {}. What is the answer?",
    "The word is {}. What is the word?",
    "The secret word is {}. Tell me the secret word.",
)
_THINGS = ("dog", "bicycle", "bridge", "guitar", "candle", "window", "ladder")
_CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "England": "London",
    "Russia": "Moscow",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Poland": "Warsaw",
}
_OPPOSITES = {
    "hot": "cold",
    "up": "down",
    "left": "right",
    "day": "night",
    "black": "white",
    "wet": "dry",
    "good": "bad",
    "open": "closed",
    "true": "false",
}
_LANGUAGES = {"Germany": "German", "Spain": "Spanish", "France": "French", "Japan": "Japanese", "Russia": "Russian"}
_COUNTRIES = {"Paris": "France", "Tokyo": "Japan", "Rome": "Italy", "Berlin": "Germany", "London": "England"}
_PEOPLE = {
    "Who wrote Romeo and Juliet?": "William Shakespeare",
    "Who painted the Mona Lisa?": "Leonardo da Vinci",
    "Who developed the theory of relativity?": "Albert Einstein",
    "Who was the first president of the United States?": "George Washington",
}
_OTHERS: dict[str, tuple[str, ...]] = {  # the answer comes first
    "What do bees make?": ("honey", "milk", "bread", "wool"),
    "Is the sun a star or a planet?": ("star", "planet"),
    "What is the chemical symbol of water?": ("H2O", "CO2", "NaCl", "O2"),
    "What is the chemical formula of carbon dioxide?": ("CO2", "H2O", "NaCl", "O2"),
    "What is the first letter of the alphabet?": ("A", "B", "C", "D"),
    "On which continent is Kenya?": ("Africa", "Europe", "Asia", "Australia"),
    "On which continent is Germany?": ("Europe", "Africa", "Asia", "Australia"),
    "In which country are the pyramids of Giza?": ("Egypt", "Japan", "Italy", "Brazil"),
    "What is the plural of child?": ("children", "dogs", "houses", "trees"),
    "What is the plural of mouse?": ("mice", "dogs", "houses", "trees"),
    "What is the past tense of go?": ("went", "tall", "blue", "wet"),
}
_CHOICES = 4


def blind_questions(count: int, generator: torch.Generator) -> list[Question]:
    """Different ones, in chance order.

    Raises:
        UserError: more than there are.
    """
    bank = [
        Question("stated", text.format(word), word, words, None)
        for words in (SHAPES, _THINGS)
        for word in words
        for text in _STATED
    ]
    for text, facts in (
        ("What is the capital of {}?", _CAPITALS),
        ("What is the opposite of {}?", _OPPOSITES),
        ("Which language is spoken in {}?", _LANGUAGES),
        ("In which country is {}?", _COUNTRIES),
        ("{}", _PEOPLE),
    ):
        answers = list(dict.fromkeys(facts.values()))
        for i, (key, answer) in enumerate(facts.items()):
            others = [a for a in answers[i:] + answers[:i] if a != answer][: _CHOICES - 1]
            bank.append(Question("known", text.format(key), answer, tuple(sorted([answer, *others])), None))
    bank += [Question("known", text, choices[0], tuple(sorted(choices)), None) for text, choices in _OTHERS.items()]
    if count > len(bank):
        raise UserError(f"blind={count}: there are {len(bank)} such questions; set blind={len(bank)} or lower")
    return [bank[i] for i in torch.randperm(len(bank), generator=generator)[:count].tolist()]

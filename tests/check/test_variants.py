"""The variants that the checks try: every choice that a setting offers stands in one of them."""

import dataclasses
from typing import Literal, get_args, get_origin

import pytest

from scratchgen.check.variants import VARIANTS, variants
from scratchgen.models import find_model, model_names
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.nn.initialisers import INITIALISERS

CHOICES = [
    (name, field)
    for name in model_names()
    for field in dataclasses.fields(find_model(name))
    if get_origin(field.type) is Literal
]
SHARED = {tuple(ACTIVATIONS), tuple(INITIALISERS)}  # tables that many models share: once for all of them is enough


def tried(name, field):
    return {settings.get(field.name, field.default) for settings in variants(name)}


@pytest.mark.parametrize(("name", "field"), [pytest.param(*c, id=f"{c[0]}-{c[1].name}") for c in CHOICES])
def test_every_choice_of_a_setting_is_tried(name, field):
    choices, found = get_args(field.type), tried(name, field)
    if choices in SHARED:
        found = set().union(*(tried(*other) for other in CHOICES if get_args(other[1].type) == choices))
    assert set(choices) <= found


def test_the_variants_are_of_models_and_begin_with_the_example():
    assert set(VARIANTS) <= set(model_names())
    assert all(variants(name)[0] == {} for name in model_names())

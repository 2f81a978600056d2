"""JSON of three fields that the question gives."""

import json
from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask
from core.engine.datasets.simple_tasks.words import CITIES, NAMES


def _draw(random: Random) -> Drawn:
    person = {"name": random.choice(NAMES), "age": random.randint(18, 80), "city": random.choice(CITIES)}
    question = f"Write as JSON: name {person['name']}, age {person['age']}, city {person['city']}."
    schema = {
        "type": "object",
        "properties": {field: {"const": value} for field, value in person.items()},
        "required": list(person),
        "additionalProperties": False,
    }
    return Drawn(question, json.dumps(person), schema)


TASK = SimpleTask("json", 5, "write three given fields as JSON", "json_schema", _draw)

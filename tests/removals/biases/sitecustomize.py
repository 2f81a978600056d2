"""Python loads this where the folder is on PYTHONPATH: two packages of the product get a place more to look in."""

from pathlib import Path

from core import methods
from core.engine import removals

for package, place in ((removals, "removals"), (methods, "methods")):
    package.__path__.append(str(Path(__file__).with_name(place)))

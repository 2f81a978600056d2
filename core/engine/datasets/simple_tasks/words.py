"""Words of which simple tasks are made: short, frequent, and all different."""

from typing import Final

NOUNS: Final = (
    "bag", "ball", "bed", "bird", "boat", "book", "bottle", "box", "bus", "cake", "car", "cat", "chair",
    "clock", "coat", "cup", "dog", "door", "fish", "flower", "fork", "garden", "hat", "horse", "house", "key",
    "lamp", "leaf", "letter", "map", "mouse", "pen", "phone", "plate", "shirt", "shoe", "spoon", "star",
    "stone", "table", "ticket", "train", "tree", "window",
)  # fmt: skip
NAMES: Final = (
    "Adam", "Alice", "Anna", "Ben", "Clara", "David", "Emma", "Eva", "Frank", "George", "Helen", "Jack", "John",
    "Julia", "Laura", "Lucy", "Maria", "Mark", "Martin", "Nina", "Oscar", "Paul", "Peter", "Robert", "Sarah", "Sofia",
)  # fmt: skip
CITIES: Final = (
    "Athens", "Berlin", "Boston", "Cairo", "Chicago", "Dublin", "Lima", "Lisbon", "London", "Madrid", "Oslo", "Paris",
    "Prague", "Rome", "Seattle", "Sydney", "Tokyo", "Toronto", "Vienna", "Warsaw",
)  # fmt: skip

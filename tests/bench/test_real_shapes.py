"""The bench of real shapes: its models have the sizes of those that it names, and processes their programs' names."""

from bench.real_shapes import SHAPES, program_of


def test_shapes_have_as_many_parameters_as_the_models_they_stand_for() -> None:
    for name, parameters in (("1B", 1_235_814_400), ("3B", 3_212_749_824)):
        shape = SHAPES[name]
        width, inner = shape["width"], shape["intermediate"]
        keys = shape["key_value_heads"] * shape.get("head_size", 64)
        layer = 2 * width * (width + keys) + 3 * width * inner + 2 * width
        assert shape["layers"] * layer + shape["vocabulary"] * width + width == parameters


def test_a_process_counts_under_its_module_or_its_program() -> None:
    assert program_of(["/venv/bin/python", "-P", "-m", "worker.runner", "x"]) == "worker.runner"
    assert program_of(["postgres: io worker 0"]) == "postgres"
    assert program_of(["/usr/lib/postgresql/17/bin/postgres", "-D", "data"]) == "postgres"
    assert program_of([]) == "ending"

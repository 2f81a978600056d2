"""Errors shared by the readers of Parquet, for unreadable files and missing columns."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from secateur_wire.errors import UnusableDataset


def load_arrow() -> None:
    """Have Arrow load all that it would load on its first use, for a process that can load nothing later."""
    words, content = pyarrow.array(["a", "a"]).dictionary_encode(), io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"words": words, "rows": [{"number": 1}, None]}), content)
    with pyarrow.parquet.ParquetFile(content) as file:
        file.read().column(0).cast(pyarrow.string()).to_pylist()
        next(file.iter_batches(columns=["rows"])).to_pylist()


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn errors of Arrow on reading the file `name` into UnusableDataset."""
    try:
        yield
    except pyarrow.ArrowMemoryError:
        raise takes_too_much(name) from None
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise UnusableDataset(
            f"{name} is not a readable Parquet file: it is damaged, cut off, or of another format", param="path"
        ) from error


def takes_too_much(name: str) -> UnusableDataset:
    return UnusableDataset(
        f"{name} needs more memory to read than is allowed: write it with smaller pages and row groups", param="path"
    )


def column_type(file: pyarrow.parquet.ParquetFile, name: str, field: str, param: str) -> pyarrow.DataType:
    """Return the type of a column; raises UnusableDataset, for the field `param`, unless there is exactly one."""
    columns = file.schema_arrow.names
    if columns.count(field) != 1:
        listed = ", ".join(repr(column[:100]) for column in columns[:20])
        number = "several columns" if field in columns else "no column"
        raise UnusableDataset(f"{name} has {number} {field!r}; it has {listed}", param=param)
    return file.schema_arrow.field(field).type

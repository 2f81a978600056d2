"""Decorators that only call, in place of those of `airflow.sdk`: a task is its function, a sensor asks until it is
done, and the order is that of the calls.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

RUN_ID = "manual__1"
MOST_LOOKS = 1200


@dataclass(frozen=True)
class Done:
    """What a task returned; `a >> b` says only that b comes after a, and it did."""

    value: Any

    def __rshift__(self, other: "Done") -> "Done":
        return other


@dataclass(frozen=True)
class PokeReturnValue:
    is_done: bool


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    filled_in = {"run_id": RUN_ID} if "run_id" in names else {}
    return function(*(each.value if isinstance(each, Done) else each for each in arguments), **filled_in)


class _Task:
    def __call__(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return self

        @functools.wraps(function)
        def call(*arguments: Any) -> Done:
            return Done(_called(function, arguments))

        return call

    def sensor(self, *, poke_interval: float, timeout: float, mode: str) -> Any:
        assert timeout > poke_interval and mode in ("poke", "reschedule")

        def decorate(function: Callable[..., Any]) -> Callable[..., Done]:
            def call(*arguments: Any) -> Done:
                for _ in range(MOST_LOOKS):
                    if _called(function, arguments).is_done:
                        return Done(None)
                    time.sleep(poke_interval)
                raise TimeoutError(function.__name__)

            return call

        return decorate


def _dag(**options: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
    assert options["catchup"] is False
    return lambda function: function


def modules() -> dict[str, ModuleType]:
    """To be put into `sys.modules`."""
    sdk = ModuleType("airflow.sdk")
    vars(sdk).update(dag=_dag, task=_Task(), PokeReturnValue=PokeReturnValue)
    return {"airflow": ModuleType("airflow"), "airflow.sdk": sdk}

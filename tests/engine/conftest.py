import pytest
import torch

from tests.engine.apart import Apart


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_shared_fixtures() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> type[Apart]:
    """Calls in fresh processes, which keep code of models in a folder of this run and ask no hub."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        environment.setenv("HF_HUB_OFFLINE", "1")
        Apart(print).wait()
    return Apart

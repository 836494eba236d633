import pytest
import torch
from torch.backends import cudnn
from torch.utils import deterministic

from lib_trainer.training.determinism import deterministic_algorithms


def settings() -> tuple[bool, ...]:
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return enabled, warns, cudnn.deterministic, cudnn.benchmark, deterministic.fill_uninitialized_memory


def test_on_a_gpu_pytorch_is_asked_for_one_order_and_restored_also_after_an_error() -> None:
    before = settings()
    with pytest.raises(KeyError), deterministic_algorithms(True, torch.device("cuda")):
        assert settings() == (True, True, True, False, False)
        raise KeyError
    assert settings() == before


@pytest.mark.parametrize(("wanted", "device"), [(False, "cuda"), (True, "cpu")])
def test_otherwise_nothing_changes(wanted: bool, device: str) -> None:
    before = settings()
    with deterministic_algorithms(wanted, torch.device(device)):
        assert settings() == before

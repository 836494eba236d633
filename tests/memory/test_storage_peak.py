from __future__ import annotations

import torch

from lib_trainer.memory.storage_peak import StoragePeak

KIB = 1024


def test_storages_are_counted_from_birth_to_death_in_the_allocators_pieces() -> None:
    peak = StoragePeak()
    with peak:
        a = torch.empty(100)
        assert peak.current == 512
        view = a[:10]
        b = torch.empty(KIB)
        assert peak.current == 512 + 4 * KIB
        del a
        assert peak.current == 512 + 4 * KIB, "a view keeps the storage"
        del view, b
        assert peak.current == 0
        assert peak.peak == 512 + 4 * KIB
        c = torch.empty(KIB)
        peak.restart()
        assert peak.peak == 4 * KIB
        del c


def test_what_was_there_before_counts_if_it_is_said_to() -> None:
    known, other, elsewhere = torch.empty(KIB), torch.empty(KIB), torch.empty(KIB)
    peak = StoragePeak()
    peak.count([known])
    peak.ignore([elsewhere])
    with peak:
        results = [known + 1, other.view(-1), elsewhere.view(-1)]
        assert peak.current == 3 * 4 * KIB
        peak.leave_out([known])
        assert peak.current == 2 * 4 * KIB
    del results


def test_temporaries_are_seen() -> None:
    peak = StoragePeak()
    x = torch.empty(KIB)
    with peak:
        y = (x * 2).add_(1) + x
    assert peak.peak == 8 * KIB and peak.current == 4 * KIB
    del y

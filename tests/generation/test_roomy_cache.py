from typing import Any

import torch
from transformers import DynamicCache

from qthink_core.generation import roomy_cache
from qthink_core.generation.roomy_cache import RoomyLayer, with_room
from qthink_core.method.hidden_states import last_hidden, pad


def run(model: Any, questions: list[list[int]], n_new: int, room: bool) -> tuple[list[torch.Tensor], Any]:
    """Hidden states of n_new single tokens behind a prefill, rows leaving at steps 3 and 7, then two tokens at once."""
    ids, mask = pad(questions[:6], 0, "left")
    cache = DynamicCache(config=model.config)
    found = [last_hidden(model, input_ids=ids, mask=mask, cache=cache)]
    if room:
        cache = with_room(cache)
    tokens = torch.arange(6)[:, None] + 300
    for step in range(n_new):
        if step in (3, 7):
            alive = torch.tensor([0, 2, 3, 5]) if step == 3 else torch.tensor([1, 3])
            cache.batch_select_indices(alive)
            mask, tokens = mask[alive], tokens[alive]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        found.append(last_hidden(model, input_ids=tokens + step % 50, mask=mask, cache=cache))
    mask = torch.cat([mask, mask.new_ones(len(mask), 2)], dim=1)
    found.append(last_hidden(model, input_ids=tokens.expand(-1, 2), mask=mask, cache=cache))
    return found, cache


@torch.inference_mode()
def test_a_cache_with_room_gives_every_bit_of_a_cache_without(
    qwen3: Any, questions: list[list[int]], monkeypatch: Any
) -> None:
    model = qwen3()
    plain, plain_cache = run(model, questions, 40, room=False)
    # 16 spare columns: the buffers grow at tokens 17 and 34, after rows have left.
    monkeypatch.setattr(roomy_cache, "SPARE_TOKENS", 16)
    roomy, roomy_cache_ = run(model, questions, 40, room=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, roomy, strict=True))
    for a, b in zip(plain_cache.layers, roomy_cache_.layers, strict=True):
        assert type(b) is RoomyLayer
        assert torch.equal(a.keys, b.keys)
        assert torch.equal(a.values, b.values)


@torch.inference_mode()
def test_a_chunk_larger_than_the_spare_room_fits(qwen3: Any, questions: list[list[int]], monkeypatch: Any) -> None:
    monkeypatch.setattr(roomy_cache, "SPARE_TOKENS", 1)
    model = qwen3()
    plain, roomy = (run(model, questions, 9, room)[0] for room in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, roomy, strict=True))


@torch.inference_mode()
def test_the_buffers_are_reused_until_they_are_full(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    ids, mask = pad(questions[:2], 0, "left")
    cache = DynamicCache(config=model.config)
    last_hidden(model, input_ids=ids, mask=mask, cache=cache)
    layer = with_room(cache).layers[0]
    addresses = []
    for _ in range(roomy_cache.SPARE_TOKENS + 1):
        mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
        last_hidden(model, input_ids=ids[:, :1], mask=mask, cache=cache)
        addresses.append(layer.keys.data_ptr())
    assert len(set(addresses[:-1])) == 1
    assert addresses[-1] != addresses[0]


@torch.inference_mode()
def test_room_for_rows_that_left_is_given_back_when_the_buffers_grow(
    qwen3: Any, questions: list[list[int]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(roomy_cache, "SPARE_TOKENS", 1)
    model = qwen3()
    ids, mask = pad(questions[:6], 0, "left")
    cache = DynamicCache(config=model.config)
    last_hidden(model, input_ids=ids, mask=mask, cache=cache)
    layer = with_room(cache).layers[0]
    cache.batch_select_indices(torch.tensor([4, 1]))
    assert [len(buffer) for buffer in layer.buffers] == [6, 6]
    mask = torch.cat([mask[[4, 1]], mask.new_ones(2, 2)], dim=1)
    last_hidden(model, input_ids=ids[:2, :2], mask=mask, cache=cache)
    assert [len(buffer) for buffer in layer.buffers] == [2, 2]


@torch.inference_mode()
def test_rows_may_be_doubled_moved_and_dropped(qwen3: Any, questions: list[list[int]]) -> None:
    """As completions of one prompt part: more rows than the buffers have, then fewer, then more within their spare rows."""
    model = qwen3()
    ids, mask = pad(questions[:3], 0, "left")
    caches = []
    for room in (False, True):
        cache = DynamicCache(config=model.config)
        last_hidden(model, input_ids=ids, mask=mask, cache=cache)
        caches.append(with_room(cache) if room else cache)
    for indices in ([0, 1, 2, 0, 2, 2, 1, 0], [0, 7, 2, 3], [0, 1, 2, 3, 3, 1]):
        for cache in caches:
            cache.batch_select_indices(torch.tensor(indices))
        for plain, roomy in zip(*(cache.layers for cache in caches), strict=True):
            assert torch.equal(plain.keys, roomy.keys)
            assert torch.equal(plain.values, roomy.values)

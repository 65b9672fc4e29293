"""The chunks of a request with latent steps: no pass has a latent beside another position, and no state is missing."""

from hypothesis import given
from hypothesis import strategies as st

from qthink_core.serving.chunks import cut, usable

ORDINARY = range(0)


def test_chunks_by_hand() -> None:
    latents = range(10, 13)
    assert cut(latents, 0, 4) == 4
    assert cut(latents, 8, 100) == 2
    assert [cut(latents, at, 100) for at in (10, 11, 12)] == [1, 1, 1]
    assert cut(latents, 13, 7) == 7
    assert cut(ORDINARY, 0, 100) == 100
    assert cut(latents, 10, 0) == 0


def test_cached_blocks_by_hand() -> None:
    """With blocks of 4 and latents at 7, 8 and 9, a hit of 8 ends inside the latents, and the prompt ends in block 1."""
    assert [usable(range(7, 10), cached, 4) for cached in (0, 4, 8, 12)] == [0, 4, 4, 12]
    # A prompt of 8 tokens: a hit of 8 has its keys and values, but not the state of its last token.
    assert usable(range(8, 11), 8, 4) == 4
    assert usable(ORDINARY, 8, 4) == 8


@given(
    prompt=st.integers(1, 40),
    K=st.integers(1, 7),
    answer=st.integers(1, 9),
    block=st.integers(1, 9),
    data=st.data(),
)
def test_every_latent_is_alone_in_its_pass_and_has_the_state_before_it(
    prompt: int, K: int, answer: int, block: int, data: st.DataObject
) -> None:
    """Whatever vLLM offers and caches; a request with an answer is one that was preempted and is computed again."""
    latents, total = range(prompt, prompt + K), prompt + K + answer
    hit = data.draw(st.integers(0, (total - 1) // block)) * block
    computed = usable(latents, hit, block)
    assert computed <= hit
    assert computed % block == 0
    state_of = None  # the position whose state the last pass has left
    while computed < total:
        tokens = cut(latents, computed, data.draw(st.integers(1, total - computed)))
        assert tokens >= 1
        chunk = range(computed, computed + tokens)
        if set(chunk) & set(latents):
            assert tokens == 1
            assert state_of == computed - 1
        computed, state_of = chunk.stop, chunk.stop - 1

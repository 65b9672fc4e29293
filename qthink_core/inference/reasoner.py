"""`LatentReasoner`: answers from Python, by a latent checkpoint or by any causal language model with a chat template."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

from qthink_core.benchmarks.bounded_rendering import Conversation, TemplateError, encoded
from qthink_core.errors import DataError, ParamError
from qthink_core.generation.decoding import Choose, greedy, sampler
from qthink_core.inference import checkpoint
from qthink_core.inference import question as asking
from qthink_core.inference.question import Message, Question
from qthink_core.inference.responding import Readout, responding
from qthink_core.inference.settings import MAX_NEW_TOKENS, Response, Settings
from qthink_core.inference.shown import count
from qthink_core.models.loading import System


class LatentReasoner:
    """A checkpoint that answers questions: prompt, K latent steps, then ordinary decoding (model card, section Usage).

    ```python
    reasoner = LatentReasoner.from_pretrained("models/gsm8k/uniform")
    print(reasoner.generate("QUESTION").text)
    ```
    """

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.folder = folder

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        K: int | None = None,
        *,
        dtype: str = "auto",
        device_map: Any = "cpu",
        thinking: bool | None = None,
        revision: str | None = None,
    ) -> Self:
        """The checkpoint in a folder or in a repository of the hub; nothing in it is executed.

        `K` is needed for a checkpoint that does not record it, such as the published ones (6), and overrides what it
        records; 0 leaves the latent steps out. `thinking` asks for a think block, by default if the model has no projection
        head. `dtype` is `auto` (that of the weights), float32, bfloat16 or float16. Raises what `checkpoint.find` and
        `checkpoint.load` raise.
        """
        checkpoint.check_place(dtype, device_map)  # before anything is downloaded
        found = checkpoint.find(model, K, thinking, revision)
        return cls(checkpoint.load(found, dtype, device_map), found.folder)

    @property
    def K(self) -> int:
        """The number of latent steps; 0 for none."""
        return self.system.K

    @overload
    def generate(self, questions: str | Sequence[Message], *, batch: int = ..., **settings: Any) -> Response: ...
    @overload
    def generate(
        self, questions: Sequence[str] | Sequence[Sequence[Message]], *, batch: int = ..., **settings: Any
    ) -> list[Response]: ...
    def generate(self, questions: Any, *, batch: int = 16, **settings: Any) -> Response | list[Response]:
        """The response to one question (a string, or a list of messages), or the responses to a list of them, in order.

        At most `batch` questions are answered together; those of like length share a batch. The greedy answer to a question
        does not depend on the others, up to the rounding of logits. `settings` are those of `Settings`. Raises ParamError
        for a wrong setting or type, DataError for a question that is empty, that the chat template does not take or that is
        too long for the model, and NumericError when a hidden state is not finite.
        """
        if type(batch) is not int or batch < 1:
            raise ParamError(f"batch is {batch!r:.40}: give a whole number above 0")
        how = Settings.of(settings)
        many = asking.several(questions)
        if many is None:
            prompts = [self.prompt(questions)]
        else:
            prompts = self._prompts(many, [f"question {number}" for number in range(1, len(many) + 1)])
        for number, prompt in enumerate(prompts):
            self.room(prompt, how, f"question {number + 1}")
        found: dict[int, Response] = {}
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for start in range(0, len(order), batch):
            numbers = order[start : start + batch]
            found |= dict(zip(numbers, self.respond([prompts[number] for number in numbers], how, numbers), strict=True))
        return found[0] if many is None else [found[number] for number in range(len(prompts))]

    def stream(self, question: Question, **settings: Any) -> "Stream":
        """The answer to one question as an iterator over pieces of its text; raises what `generate` raises."""
        how = Settings.of(settings)
        prompt = self.prompt(question)
        self.room(prompt, how, "the question")
        seen: list[Readout] = []
        return Stream(self._responding([prompt], how, [0], seen), seen)

    def prompt(self, question: Question, name: str = "the question") -> list[int]:
        """The prompt of a question, or of messages with `role` and `content`, as token ids; errors begin with `name`.

        Raises what `question.messages` raises, and DataError for messages that the chat template or the tokenizer does not
        take, or for which it takes too much time or memory.
        """
        (prompt,) = self._prompts([question], [name])
        return prompt

    def _prompts(self, questions: Sequence[Question], names: Sequence[str]) -> list[list[int]]:
        """The prompts of questions, all made by one process with limits; if it fails, by one for each, to name the cause."""
        options = {"add_generation_prompt": True, "enable_thinking": self.system.thinking}
        asked = [Conversation(asking.messages(one, name), options) for one, name in zip(questions, names, strict=True)]
        try:
            return encoded(self.system.tokenizer, self.folder, asked)
        except DataError as error:
            if len(asked) > 1:
                return [self.prompt(one, name) for one, name in zip(questions, names, strict=True)]
            if not isinstance(error, TemplateError):
                raise
            raise DataError(
                f"{error.origin} does not take these messages ({error.reason}): give "
                'messages such as {"role": "user", "content": "..."}'
            ) from None

    def room(self, prompt: Sequence[int], how: Settings, name: str) -> int:
        """The number of new tokens that may follow a prompt.

        Raises DataError when the prompt fills the model's positions, and ParamError when `max_new_tokens` exceeds what is
        left.
        """
        positions = getattr(self.system.model.config.get_text_config(), "max_position_embeddings", None)
        if positions is None:
            return how.max_new_tokens or MAX_NEW_TOKENS
        left = positions - len(prompt) - self.K
        filled = f"{name} has a prompt of {len(prompt)} tokens, followed by {count(self.K, 'latent step')}, and the model"
        if left < 1:
            raise DataError(f"{filled} has only {positions} positions: shorten the question")
        if how.max_new_tokens is not None and how.max_new_tokens > left:
            room = count(left, "position")
            raise ParamError(f"{filled} has {room} left for an answer: allow no more new tokens than that")
        return how.max_new_tokens or min(MAX_NEW_TOKENS, left)

    def respond(self, prompts: Sequence[Sequence[int]], how: Settings, numbers: Sequence[int]) -> list[Response]:
        """The responses to one batch of prompts; `numbers` are the questions' places in the call, for their draws."""
        stream = Stream(self._responding(prompts, how, numbers))
        for _ in stream:
            pass
        return stream.responses

    def _responding(
        self,
        prompts: Sequence[Sequence[int]],
        how: Settings,
        numbers: Sequence[int],
        seen: list[Readout] | None = None,
    ) -> Generator[tuple[int, str], None, list[Response]]:
        names = [f"question {number + 1}" for number in numbers]
        limits = [self.room(prompt, how, name) for prompt, name in zip(prompts, names, strict=True)]
        choose: Choose = greedy
        if how.temperature > 0:
            keys = [[how.seed, number] for number in numbers]
            choose = sampler(keys, how.temperature, how.top_p, how.top_k, max(limits))
        return responding(self.system, prompts, names, limits, choose, how, seen)


class Stream(Iterator[str]):
    """The pieces of text of one answer, as they are generated; after the last one, `response` is whole."""

    def __init__(self, pieces: Generator[tuple[int, str], None, list[Response]], seen: Sequence[Readout] = ()) -> None:
        self._pieces = pieces
        self._seen = seen
        self.responses: list[Response] = []

    def __next__(self) -> str:
        try:
            return next(self._pieces)[1]
        except StopIteration as end:
            if end.value is not None:
                self.responses = end.value
            raise StopIteration from None

    def close(self) -> None:
        """Ends the generation early."""
        self._pieces.close()

    @property
    def readout(self) -> Readout:
        """What each latent step reads as, from the first piece on; empty before it and without latent steps."""
        return self._seen[0] if self._seen else []

    @property
    def response(self) -> Response:
        """The whole response; raises ParamError before the last piece has been read."""
        if not self.responses:
            raise ParamError("the answer is still being generated: read all its pieces first")
        return self.responses[0]

"""Requests in the schema of the Tooluse set: choose the requested tool and compute its one argument."""

import json

import numpy as np

from qthink_core.benchmarks.generated.chains import Step, chain
from qthink_core.benchmarks.world import World

N_TOOLS = 2

# The frame of the published prompts, word for word; only the documentation inside it is shorter.
HEAD = "Your task is to answer the user's question using available tools. \nYou have access to the following tools:\nName:"
ABOUT = "\nDescription: Services of a small business\nDocumentation:"
TAIL = (
    "\n\nUse the following format:\nThought: you should always think about what to do\n"
    "Action: the action to take, should be one of the tool names.\n"
    "Action Input: the input to the action, must be in JSON format. "
    "All of the action input must be realistic and from the user.\n\nBegin!\nQuestion:"
)
PARAMETERS = '\nParameters: {"'
INTEGER = '": "integer. How many."}\nOutput: Successful response.\n - Format: application/json\n - Structure: Object{done}'

# The tools of each API, with the name of their one argument.
APIS = {
    "Garden": {"waterRoses": "liters", "plantTrees": "trees", "pickPears": "baskets", "cutGrass": "meters"},
    "Shop": {"orderPens": "packs", "sellLamps": "lamps", "packBoxes": "boxes", "printLabels": "sheets"},
    "Kitchen": {"bakeBread": "loaves", "boilEggs": "minutes", "washCups": "cups", "fryFish": "grams"},
    "Office": {"sendMails": "copies", "bookRooms": "hours", "fileForms": "pages", "callGuests": "guests"},
}


def draw(rng: np.random.Generator, world: World) -> tuple[dict[str, object], list[Step]]:
    """A problem as (row without its idx, steps)."""
    api = list(APIS)[int(rng.integers(len(APIS)))]
    tools = [list(APIS[api])[int(i)] for i in rng.permutation(len(APIS[api]))[:N_TOOLS]]
    tool = tools[int(rng.integers(N_TOOLS))]
    steps = chain(rng, world)
    request = ", ".join([f"Take {steps[0].left}", *map(_change, steps)])
    documentation = "".join(f"\n{t}: {_words(t)}.{PARAMETERS}{APIS[api][t]}{INTEGER}" for t in tools)
    prompt = f"{HEAD} {api}{ABOUT}{documentation}{TAIL} {_words(tool)}. {request}."
    action_input = json.dumps({APIS[api][tool]: steps[-1].result})
    row: dict[str, object] = {
        "prompt": prompt,
        "description": prompt,
        "dataset": "tooluse",
        "system": None,
        "answer": json.dumps([{"Action": tool, "Action_Input": action_input}]),
        "tests": None,
        "kind": "tooluse",
        "elo": 1500,
    }
    return row, steps


def answer(row: dict[str, object], value: int) -> str:
    """The answer of an assistant that computed `value`: the call of the row with this argument."""
    (call,) = json.loads(str(row["answer"]))
    (argument,) = json.loads(call["Action_Input"])
    return f"Action: {call['Action']}\nAction Input: {json.dumps({argument: value})}"


def _words(tool: str) -> str:
    """`waterRoses` as `Water roses`."""
    cut = next(i for i, letter in enumerate(tool) if letter.isupper())
    return f"{tool[:cut].capitalize()} {tool[cut:].lower()}"


def _change(step: Step) -> str:
    match step.sign:
        case "+":
            return f"add {step.operand}"
        case "-":
            return f"remove {step.operand}"
        case "*":
            return "double it"
        case _:
            return "halve it"

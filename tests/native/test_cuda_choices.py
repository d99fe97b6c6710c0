"""Which of cuBLASLt's algorithms a product takes: the fastest that takes any number of rows, chosen once a process.

On a stand-in for cuBLASLt (cuda_stand_in/), whose algorithms cost what a test says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cuda_stand_in.sessions import StandIn

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
FORWARD, BACKWARD, BY_EIGHT, SPLIT = 1, 2, 3, 4  # algorithms of the stand-in
Chosen = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


# Algorithms are chosen once a process: each piece of code runs in a child of its own, forked where all is imported.
CHOOSING = """
import json, os, sys, traceback, numpy as np
sys.path[:0] = sys.argv[3].split(":")
from pathlib import Path
import onnxruntime
from cuda_stand_in.sessions import StandIn, fed, model
from fastembed_rt.native import cuda
random = np.random.default_rng(0)
x, weight = random.standard_normal((2, 256)).astype(np.float16), random.standard_normal((256, 8)).astype(np.float16)
made = model("LinearFloat16", {"x": x}, [weight], in_features=256, out_features=8)
def products():
    return [host.stand_in_products(order) for order in range(5)]
def load():
    return here.session(made)
def taken(session):
    before = products(); fed(session, {"x": x}); after = products()
    return [b - a for a, b in zip(before, after)].index(1)
for line in sys.stdin:
    end, out = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(out, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            here = StandIn(Path(sys.argv[1]), Path(sys.argv[2]))
            file, host = here.file, here.host
            exec(json.loads(line))
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(out)
    with os.fdopen(end) as said:
        words = said.read().split()
    print(json.dumps([words, os.waitpid(child, 0)[1]]), flush=True)
"""


@pytest.fixture(scope="module")
def chosen(stand_in: StandIn) -> Iterator[Chosen]:
    """What code prints in a process of its own."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-c", CHOOSING, str(stand_in.file), str(stand_in.standing_in), paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(code: str) -> list[str]:
            assert process.stdout
            print(json.dumps(code), file=process.stdin, flush=True)
            words, status = json.loads(process.stdout.readline())
            assert status == 0, code
            return list(words)

        yield ask


def test_algorithms_differ_in_their_bits(chosen: Chosen) -> None:
    """Or the tests below and above could not fail."""
    code = "host.stand_in_set_cost({}, 0.1); print(fed(load(), {{'x': x}}).tobytes().hex())"
    assert len({chosen(code.format(order))[0] for order in (FORWARD, BACKWARD, BY_EIGHT)}) == 3


@pytest.mark.parametrize(
    ("costs", "few", "taken"),
    [
        ({}, {}, FORWARD),  # all alike: the first that cuBLASLt names
        ({BACKWARD: 0.99}, {}, FORWARD),  # not enough to be more than another run's clock
        ({BACKWARD: 0.5}, {}, BACKWARD),
        ({BACKWARD: 0.9, BY_EIGHT: 0.7}, {}, BY_EIGHT),
        ({SPLIT: 0.1}, {}, FORWARD),  # never asked for
        ({BY_EIGHT: 0.99}, {BACKWARD: 0.5}, BACKWARD),  # as fast for many rows, and faster for few
        ({BACKWARD: 1.05}, {BACKWARD: 0.1}, FORWARD),  # what many rows would lose, few rows do not decide
    ],
)
def test_the_fastest_algorithm_is_taken_once_a_process(
    chosen: Chosen, costs: dict[int, float], few: dict[int, float], taken: int
) -> None:
    code = "".join(f"host.stand_in_set_cost({order}, {cost})\n" for order, cost in costs.items())
    code += "".join(f"host.stand_in_set_cost_of_few({order}, {cost})\n" for order, cost in few.items())
    code += "print(taken(load()), taken(load()), host.stand_in_heuristics(), host.stand_in_allocated())"
    assert chosen(code) == [str(taken), str(taken), "1", "0"]


@pytest.mark.parametrize("least", [2, 65])
@pytest.mark.parametrize("timed", [True, False])
def test_an_algorithm_that_few_rows_have_not_is_left_out(chosen: Chosen, least: int, timed: bool) -> None:
    """Whatever it takes: a call of one row would fail. The same of one that an earlier process chose."""
    few = f"host.stand_in_set_cost({FORWARD}, 0.1)\nhost.stand_in_set_least_rows({FORWARD}, {least})\n"
    memory = "" if timed else "host.stand_in_set_out_of_memory(1)\n"
    one = "x = x[:1]\nprint(taken(load()), host.stand_in_heuristics())"
    assert chosen(few + memory + one) == [str(BACKWARD), "1"]
    said = chosen("host.stand_in_set_cost(1, 0.1); load(); print(cuda.choices(file, 0).hex())")
    learn = f"cuda.learn(file, 0, bytes.fromhex('{said[0]}'))\n"
    assert chosen(learn + few + memory + one) == [str(BACKWARD), "1"]
    none = "".join(f"host.stand_in_set_least_rows({order}, 2)\n" for order in (FORWARD, BACKWARD, BY_EIGHT))
    code = "try: load()\nexcept Exception as error: print('for any number of rows' in str(error))"
    assert chosen(none + memory + code) == ["True"]


def test_without_memory_to_time_with_the_first_is_taken(chosen: Chosen) -> None:
    code = "host.stand_in_set_out_of_memory(1); host.stand_in_set_cost(2, 0.1); print(taken(load()))"
    assert chosen(code) == [str(FORWARD)]


def test_a_later_process_takes_what_an_earlier_one_chose(chosen: Chosen) -> None:
    said = chosen(
        "host.stand_in_set_cost(2, 0.5); load()\n"
        "print(cuda.choices(file, 0).hex(), cuda.choices(file, 1).hex() or 'none')",
    )
    assert said[1] == "none"
    learn = f"cuda.learn(file, 0, bytes.fromhex('{said[0]}'))\n"
    code = f"{learn}host.stand_in_set_cost(3, 0.1); print(taken(load()), host.stand_in_heuristics())"
    assert chosen(code) == [str(BACKWARD), "0"]
    # One that no longer runs is chosen anew, and so is one of no sense.
    code = f"{learn}host.stand_in_refuse(2); print(taken(load()), host.stand_in_heuristics())"
    assert chosen(code) == [str(FORWARD), "1"]
    spoilt = said[0][:64] + "ff" * 64
    code = f"cuda.learn(file, 0, bytes.fromhex('{spoilt}'))\nprint(taken(load()), len(cuda.choices(file, 0)))"
    assert chosen(code) == [str(FORWARD), "96"]


def test_a_thread_without_a_device_leaves_the_choice_to_the_first_call(chosen: Chosen) -> None:
    """Nothing is chosen while a session is made where no device is current; a call then has one, or says so."""
    code = (
        "host.stand_in_set_device(-1)\n"
        "try: session = load(); fed(session, {'x': x}); print('ran')\n"
        "except Exception as error: print(str(error).split('fastembed_rt: ')[-1].replace(' ', '_'))"
    )
    (said,) = chosen(code)
    assert said == "LinearFloat16:_cuBLASLt_does_not_start_on_this_device"

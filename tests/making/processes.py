"""Several processes, as torchrun starts them, without torchrun: forked, so that torch is imported once."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest

from base import files
from loop import fit

PATIENCE = 120  # seconds until a process counts as hanging


def member(
    rank: int,
    world: int,
    port: int,
    main: Callable,
    words: list[str],
    stop: tuple[int, int] | None,
    late: float,
) -> None:
    """One process of several. stop: (rank, step): there a SIGTERM arrives, during that step."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
    )
    real = fit.optimizer_step

    def step_with_a_signal(objective, micro_batches, step, *others):
        if stop == (rank, step):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(objective, micro_batches, step, *others)

    fit.optimizer_step = step_with_a_signal
    time.sleep(late * rank)
    files.run(lambda: main(words))


def together(
    world: int,
    main: Callable,
    words: list[str],
    stop: tuple[int, int] | None = None,
    late: float = 0.0,
) -> list[int]:
    """Run main(words) in `world` processes; their exit statuses.

    late: seconds by which each process starts after the one before, as on a busy machine.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    fork = multiprocessing.get_context("fork")
    members = []
    for rank in range(world):
        given = (rank, world, port, main, words, stop, late)
        members.append(fork.Process(target=member, args=given))
    for process in members:
        process.start()
    for process in members:
        process.join(PATIENCE)
    hanging = [process for process in members if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "processes that never ended"
    return [process.exitcode for process in members]

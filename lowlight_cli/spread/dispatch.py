"""Jobs to members that may be lost at any moment, and the jobs of the lost to others. Ray is not known here.

A member is one worker somewhere else, with its model loaded. It has one job at a time, so a loss costs one job's time.
Messages of all members come through one queue, on which Python itself waits: a signal ends that wait at once, where a
wait inside a library would swallow it.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from lowlight_cli.atomic import remove_parts
from lowlight_cli.errors import LowlightError, WorkerError
from lowlight_cli.paths import Job
from lowlight_cli.results import FileResult, failed_job
from lowlight_cli.spread.order import InOrder

logger = logging.getLogger(__name__)

_LOSSES = 3  # a job that so many members were lost with fails; a place whose members are lost so often is given up
_PATIENCE_SECONDS = 20.0  # before we say that the cluster has no room yet
_FAREWELL_SECONDS = 20.0  # for members to leave their work, or a clip's frame, tidily


class MemberLost(Exception):  # noqa: N818 (an event here, no error yet)
    """A member ended, or its machine did, before it had answered."""


@dataclass(frozen=True)
class Done:
    """What a member answers: the job's result, or why all work must end; and what it logged on the way."""

    result: FileResult | None
    error: LowlightError | None = None
    logged: tuple[tuple[str, int, str], ...] = ()


Answer = str | LowlightError | Done


class Member(Protocol):
    """One worker somewhere else. Its futures raise MemberLost when it is lost, anything else is a bug."""

    def hello(self) -> "Future[Answer]":
        """Resolve when the model is loaded, to what it is and where it runs, or to why it cannot be."""

    def do(self, job: Job, *, again: bool) -> "Future[Answer]":
        """Do a job; `again` if a lost member had begun it."""

    def stop(self) -> None:
        """Ask to leave the job at hand soon."""

    def kill(self) -> None:
        """End the member."""


@dataclass(eq=False)
class _Place:
    """A member and what it is about; lost members are replaced in their place."""

    member: Member
    job: int | None = None
    is_ready: bool = False
    losses: int = 0
    answer: "Future[Answer] | None" = None


class Dispatch:
    """Hires `count` members and gives them jobs."""

    def __init__(self, start: Callable[[], Member], count: int, *, fail_fast: bool) -> None:
        self._start, self._fail_fast = start, fail_fast
        self._heard: SimpleQueue[_Place] = SimpleQueue()
        self._places: list[_Place] = []
        self._jobs: Sequence[Job] = ()
        self._todo: deque[int] = deque()
        self._lost: Counter[int] = Counter()
        self._has_left = False
        self.made_with = ""
        for _ in range(count):
            place = _Place(start())
            self._places.append(place)
            self._await(place, place.member.hello())

    def wait_for_one(self) -> None:
        """Wait until a member is ready; raises why none can be."""
        while not any(place.is_ready for place in self._places):
            try:
                self._hear(self._heard.get(timeout=_PATIENCE_SECONDS))
            except Empty:
                logger.warning("waiting for the cluster to have room for a worker")

    def run(self, jobs: Sequence[Job]) -> Generator[FileResult]:
        """Do the jobs and yield a result for each in their order."""
        self._jobs, self._todo = jobs, deque(range(len(jobs)))
        order = InOrder(len(jobs), fail_fast=self._fail_fast)
        try:
            while not order.is_complete:
                self._assign()
                for number, result in self._hear(self._heard.get()):
                    yield from order.take(number, result)
            yield from self._rest(order)
        except (Exception, KeyboardInterrupt):
            yield from self._rest(order)
            raise

    def close(self) -> None:
        """Ask every member to leave its job, give it time to do so tidily, and end it."""
        self._leave()
        for place in self._places:
            place.member.kill()
            if place.job is not None and place.answer is not None and not place.answer.done():
                _remove_parts(self._jobs[place.job])

    def _leave(self) -> None:
        if self._has_left:
            return
        self._has_left = True
        busy = [place for place in self._places if place.job is not None]
        for place in busy:
            place.member.stop()
        wait([place.answer for place in busy if place.answer is not None], timeout=_FAREWELL_SECONDS)

    def _rest(self, order: InOrder) -> Iterator[FileResult]:
        """Have members leave their jobs, and yield what came of those that they had finished."""
        self._leave()
        for place in self._places:
            number, answer = place.job, place.answer
            if number is None or answer is None or not answer.done() or answer.exception() is not None:
                continue
            place.job = None
            last = answer.result()
            if isinstance(last, Done) and last.result is not None:
                yield from order.take(number, last.result)
        yield from order.rest()

    def _assign(self) -> None:
        for place in self._places:
            if place.is_ready and place.job is None and self._todo:
                number = self._todo.popleft()
                place.job = number
                self._await(place, place.member.do(self._jobs[number], again=self._lost[number] > 0))

    def _await(self, place: _Place, answer: "Future[Answer]") -> None:
        place.answer = answer
        answer.add_done_callback(lambda _: self._heard.put(place))

    def _hear(self, place: _Place) -> Iterator[tuple[int, FileResult]]:
        """Take a member's answer; return results with their jobs' numbers."""
        assert place.answer is not None
        number = place.job
        try:
            answer = place.answer.result()
        except MemberLost as lost:
            return self._replace(place, str(lost))
        place.answer = place.job = None
        place.losses = 0
        if isinstance(answer, LowlightError):
            raise answer
        if isinstance(answer, str):
            place.is_ready = True
            self.made_with = self.made_with or answer
            return iter(())
        for name, level, message in answer.logged:
            logging.getLogger(name).log(level, "%s", message)
        if answer.error is not None:
            raise answer.error
        assert number is not None
        assert answer.result is not None
        return iter([(number, answer.result)])

    def _replace(self, place: _Place, why: str) -> Iterator[tuple[int, FileResult]]:
        """Start anew for a lost member; give its job to another, or up if it has cost too many."""
        logger.debug("a worker was lost: %s", why)
        place.member.kill()  # one out of reach may still be at work
        number, place.job, place.answer, place.is_ready = place.job, None, None, False
        place.losses += 1
        if place.losses < _LOSSES or number is not None:
            place.member = self._start()
            self._await(place, place.member.hello())
        else:
            self._places.remove(place)
            if not self._places:
                raise WorkerError(f"no worker of the cluster can be kept: {why}")
        if number is None:
            return iter(())
        job = self._jobs[number]
        _remove_parts(job)
        self._lost[number] += 1
        if self._lost[number] < _LOSSES:
            self._todo.appendleft(number)
            return iter(())
        error = WorkerError(f"{_LOSSES} workers were lost with it, as happens when memory runs out: {why}")
        return iter([(number, failed_job(job, error))])


def _remove_parts(job: Job) -> None:
    for path in job.files:
        remove_parts(path)

"""What an asset watcher announces: nothing missed, nothing twice, whatever happens to processes."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.watching import announcements
from airflow_imagetag.watching.announcements import (
    BEGINS_WITHIN,
    FIRST_REMINDER,
    LONGEST_REMINDER,
    MAX_ANNOUNCED,
    Announcement,
    AnnouncementState,
    announce,
    digest_of,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def images(*keys: str, version: str | None = None) -> list[Image]:
    """Return images with these keys."""
    return [Image(key, f"https://x/{key}", version=version) for key in keys]


def ask(
    waiting: Iterable[Image],
    memory: AnnouncementState | None = None,
    *,
    min_images: int = 1,
    max_images: int = 10_000,
    now: datetime = NOON,
) -> Announcement:
    """Ask what to announce; the memory goes through JSON, as Airflow keeps it."""
    kept = AnnouncementState.load(json.loads(json.dumps((memory or AnnouncementState()).dump())))
    return announce(waiting, kept, min_images=min_images, max_images=max_images, now=now)


def keys(announcement: Announcement) -> list[str]:
    """Return the keys of what is announced."""
    return [image.key for image in announcement.images]


# -- one watcher ------------------------------------------------------------------------------


def test_what_is_new_is_announced_once():
    """What was announced and still waits is not announced again; what comes later is."""
    first = ask(images("a", "b"))
    assert keys(first) == ["a", "b"]
    second = ask(images("a", "b"), first.memory)
    assert keys(second) == []
    later = ask(images("a", "b", "c"), second.memory, now=NOON + BEGINS_WITHIN)
    assert keys(later) == ["c"]


def test_another_version_is_another_image():
    """A replaced image is announced again, and one that has another key and the same version."""
    first = ask(images("a", version="1"))
    later = [*images("a", version="2"), *images("b", version="1")]
    assert keys(ask(later, first.memory)) == ["a", "b"]


def test_what_has_its_labels_is_forgotten():
    """Else the memory would grow for ever; an image whose labels were removed is new again."""
    first = ask(images("a", "b", "c"))
    second = ask(images("b"), first.memory)
    assert second.memory.digests == {digest_of(image) for image in images("b")}
    assert keys(ask(images("a", "b"), second.memory)) == ["a"]


def test_too_few_are_not_announced():
    """They are announced together when there are enough, and images announced before are none."""
    first = ask(images("a", "b"), min_images=3)
    assert keys(first) == []
    assert first.memory == AnnouncementState()
    second = ask(images("a", "b", "c"), first.memory, min_images=3)
    assert keys(second) == ["a", "b", "c"]
    third = ask(images("a", "b", "c", "d", "e"), second.memory, min_images=3)
    assert keys(third) == []


def test_no_more_than_max_images_at_a_time():
    """The first of the source's order; the others come next, as runs label those before."""
    memory, told = AnnouncementState(), []
    for waiting in ("abcdefg", "bcdefg", "efg", "g"):
        found = ask(images(*waiting), memory, max_images=3)
        memory = found.memory
        told.append(keys(found))
    assert told == [["a", "b", "c"], ["d", "e", "f"], ["g"], []]


@pytest.mark.parametrize(("min_images", "max_images"), [(5, 3), (50, 3), (5_000, 500)])
def test_more_may_be_waited_for_than_are_announced_at_a_time(min_images: int, max_images: int):
    """The first announcement of so many has as many as one may have."""
    waiting = [Image(f"{number}", "https://x") for number in range(min_images)]
    assert ask(waiting[:-1], min_images=min_images, max_images=max_images).images == ()
    assert len(ask(waiting, min_images=min_images, max_images=max_images).images) == max_images


# -- one announcement at a time ---------------------------------------------------------------


def test_the_next_announcement_waits_until_the_last_was_picked_up():
    """That images of it have their labels shows that its run was started."""
    first = ask(images("a", "b"))
    second = ask(images("a", "b", "c"), first.memory, now=NOON + MINUTE)
    assert keys(second) == []
    third = ask(images("b", "c"), second.memory, now=NOON + 2 * MINUTE)
    assert keys(third) == ["c"]


def test_a_run_that_does_not_begin_holds_nothing_back_for_ever():
    """It may have failed; what is new is announced after a while, and only that."""
    first = ask(images("a"))
    soon = ask(images("a", "b"), first.memory, now=NOON + BEGINS_WITHIN - MINUTE)
    assert keys(soon) == []
    later = ask(images("a", "b"), soon.memory, now=NOON + BEGINS_WITHIN)
    assert keys(later) == ["b"]


# -- reading no more than needed --------------------------------------------------------------


class Counted:
    """Images without an end, counted as they are read."""

    def __init__(self, known: list[Image]) -> None:
        self.known = known
        self.read = 0

    def __iter__(self) -> Iterator[Image]:
        for image in self.known:
            self.read += 1
            yield image
        while self.read < 1_000_000:
            self.read += 1
            yield Image(f"new {self.read}", "https://x")


def test_reading_stops_when_there_are_enough():
    """A watcher of a bucket of a million objects that nobody labelled reads what it announces."""
    endless = Counted([])
    assert len(ask(endless, max_images=20).images) == 20
    assert endless.read == 20


def test_reading_goes_on_until_all_announced_images_were_seen():
    """Only what was not seen to the end has its labels; nothing more is held meanwhile."""
    known = images("a", "b")
    first = ask(known)
    endless = Counted([*images("x", "y", "z"), *known])
    found = ask(endless, first.memory, max_images=2, now=NOON + BEGINS_WITHIN)
    assert keys(found) == ["x", "y"]
    assert endless.read == 5
    assert {digest_of(image) for image in known} <= found.memory.digests


# -- announcements that came to nothing --------------------------------------------------------


def test_what_still_waits_is_announced_again_after_ever_longer_pauses():
    """Its announcement was lost, or its run failed; a run that fails each time starts rarely."""
    memory = ask(images("a", "b")).memory
    minutes = []
    for minute in range(1, 3000):
        found = ask(images("b"), memory, now=NOON + minute * MINUTE)
        memory = found.memory
        if found.images:
            assert keys(found) == ["b"]
            minutes.append(minute)
    assert minutes == [30, 90, 210, 450, 930, 1890]


def test_the_longest_pause_is_a_day():
    """What was forgotten for a year is still found."""
    now, memory = NOON, ask(images("a")).memory
    for _ in range(20):
        now += LONGEST_REMINDER
        found = ask(images("a"), memory, now=now)
        memory = found.memory
        assert keys(found) == ["a"]


def test_the_rest_of_an_announcement_is_repeated_and_not_what_came_later():
    """Each image has the pause of the announcement that it was in last."""
    first = ask(images("a", "b"))
    second = ask(images("b", "c"), first.memory, now=NOON + 20 * MINUTE)
    assert keys(second) == ["c"]
    third = ask(images("b", "c"), second.memory, now=NOON + FIRST_REMINDER)
    assert keys(third) == ["b"]
    fourth = ask(images("b", "c"), third.memory, now=NOON + FIRST_REMINDER + 20 * MINUTE)
    assert keys(fourth) == ["c"]


def test_a_repeated_announcement_needs_no_min_images():
    """There were enough when it was made first; what is new goes on waiting for enough."""
    first = ask(images("a", "b"), min_images=2)
    again = ask(images("b", "c"), first.memory, min_images=2, now=NOON + FIRST_REMINDER)
    assert keys(again) == ["b"]


def test_what_is_new_goes_with_what_is_repeated():
    """One announcement holds both, up to max_images; the rest comes with the next."""
    first = ask(images("b", "d"))
    both = ask(images("a", "b", "c", "d"), first.memory, max_images=3, now=NOON + FIRST_REMINDER)
    assert keys(both) == ["b", "d", "a"]
    rest = ask(images("c", "d"), both.memory, now=NOON + FIRST_REMINDER + MINUTE)
    assert keys(rest) == ["c"]


def test_a_clock_that_was_wrong():
    """What was sent in the future is announced again, and does not hold anything back."""
    first = ask(images("a"), now=NOON + 30 * LONGEST_REMINDER)
    second = ask(images("a", "b"), first.memory)
    assert sorted(keys(second)) == ["a", "b"]


def test_a_lost_announcement_is_repeated():
    """The process was killed after it noted the announcement; nobody knows whether it was sent."""
    first = ask(images("a", "b"))
    assert keys(ask(images("a", "b"), first.memory, now=NOON + FIRST_REMINDER - MINUTE)) == []
    assert keys(ask(images("a", "b"), first.memory, now=NOON + FIRST_REMINDER)) == ["a", "b"]


# -- as many as may wait ----------------------------------------------------------------------


def test_further_images_are_held_back_until_runs_have_labelled_some():
    """The memory stays small, whatever lies in the bucket, and says that it is full."""
    waiting = [Image(f"{number:05}", "https://x") for number in range(MAX_ANNOUNCED + 500)]
    first = ask(waiting)
    assert len(first.images) == MAX_ANNOUNCED
    assert first.is_held_back
    full = ask(waiting, first.memory)
    assert full.images == ()
    assert full.is_held_back
    third = ask(waiting[200:], full.memory)
    assert keys(third) == [f"{number:05}" for number in range(MAX_ANNOUNCED, MAX_ANNOUNCED + 200)]
    assert third.is_held_back
    last = ask(waiting[MAX_ANNOUNCED + 1 :], third.memory)
    assert len(last.images) == 300
    assert not last.is_held_back


def test_a_full_memory_fits_what_airflow_keeps():
    """Airflow advises 64 KB for a value."""
    waiting = [Image(f"{number}", "https://x") for number in range(MAX_ANNOUNCED)]
    memory = AnnouncementState()
    for first in range(0, MAX_ANNOUNCED, 100):
        # The worst case: no run of any announcement has begun.
        digests = {digest_of(image) for image in waiting[first : first + 100]}
        memory = memory.resent(digests, NOON + first * BEGINS_WITHIN)
    assert len(memory.digests) == MAX_ANNOUNCED
    assert len(json.dumps(memory.dump())) < 64 * 1024


def test_digests_tell_images_apart():
    """Key and version are told apart, and so is text that is no UTF-8."""
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("a", ""), ("\udcff", ""), ("a", "\udcff")]
    digests = [digest_of(Image(key, "https://x", version=version)) for key, version in pairs]
    digests += [digest_of(Image(f"{number}", "https://x")) for number in range(50_000)]
    assert len(set(digests)) == len(digests)
    assert digest_of(Image("a", "https://x")) == digest_of(Image("a", "s3://y", version=""))


GOOD = {"digests": "", "sent_at": NOON.isoformat(), "times": 1, "is_picked_up": False}
RUBBISH: list[Any] = [
    5,
    "",
    "announced",
    {},
    {"announced": "", "under_way": []},
    [1],
    [{}],
    [GOOD | {"digests": None}],
    [GOOD | {"sent_at": "noon"}],
    [GOOD | {"sent_at": 12}],
    [GOOD | {"sent_at": "2026-07-01"}],
    [GOOD, {name: value for name, value in GOOD.items() if name != "is_picked_up"}],
]


@pytest.mark.parametrize("value", RUBBISH)
def test_what_is_no_memory_is_not_taken_for_an_empty_one(value: Any):
    """It would announce all images again."""
    with pytest.raises(ValueError, match=r"."):
        AnnouncementState.load(value)


# -- any history ------------------------------------------------------------------------------


class History:
    """A random course of events: images come and are labelled, and processes are killed.

    :param seed: of the chance.
    :param slowest: minutes that a run takes at most.
    :param is_killed: whether processes are killed.
    :param is_replaced: whether images are replaced and deleted.
    :param fails: probability that a run fails.
    """

    def __init__(
        self,
        seed: int,
        *,
        slowest: int,
        is_killed: bool,
        is_replaced: bool = False,
        fails: float = 0.0,
    ) -> None:
        self.chance = random.Random(seed)
        self.slowest, self.is_killed = slowest, is_killed
        self.is_replaced, self.fails = is_replaced, fails
        self.now = NOON
        self.waiting: dict[str, Image] = {}
        self.kept = json.dumps(AnnouncementState().dump())
        self.told: Counter[tuple[str, str | None]] = Counter()
        self.runs: list[tuple[datetime, list[Image]]] = []
        self.events: list[tuple[datetime, list[Image]]] = []
        self.first_unseen: datetime | None = None
        self.min_images = self.chance.choice([1, 1, 2, 4])
        self.max_images = self.chance.choice([1, 3, 50])

    def live(self, minutes: int, *, comes: float) -> None:
        """Let time pass.

        :param comes: probability that an image comes in a minute.
        """
        for _ in range(minutes):
            self.now += MINUTE
            while self.chance.random() < comes:
                key = f"{self.chance.randrange(60 if self.is_replaced else 10**9)}"
                version = f"{self.now.isoformat()} {self.chance.random()}"
                self.waiting[key] = Image(key, "https://x", version=version)
            if self.is_replaced and self.waiting and self.chance.random() < comes / 10:
                del self.waiting[self.chance.choice(list(self.waiting))]
            self._label()
            self._schedule()
            self._look()

    def _label(self) -> None:
        for run in [run for run in self.runs if run[0] <= self.now]:
            self.runs.remove(run)
            if self.chance.random() < self.fails:
                continue
            for image in run[1]:
                if self.waiting.get(image.key) == image:
                    del self.waiting[image.key]

    def _schedule(self) -> None:
        """Do as Airflow's scheduler does: one run for the events up to the first it has not seen.

        Those that came after that one, and before the scheduler looked, wait for another.
        """
        if self.first_unseen is None or self.chance.random() < 0.3:
            return
        seen = [event for event in self.events if event[0] <= self.first_unseen]
        self.events = [event for event in self.events if event not in seen]
        self.first_unseen = None
        delay = MINUTE * self.chance.uniform(0, self.slowest)
        self.runs.append((self.now + delay, [image for _, batch in seen for image in batch]))

    def _look(self) -> None:
        """Do as the trigger does, and maybe be killed at any of its steps."""
        steps = self.chance.randrange(3) if self.is_killed and self.chance.random() < 0.2 else 9
        found = announce(
            self.chance.sample(list(self.waiting.values()), len(self.waiting)),
            AnnouncementState.load(json.loads(self.kept)),
            min_images=self.min_images,
            max_images=self.max_images,
            now=self.now,
        )
        if steps > 0:
            self.kept = json.dumps(found.memory.dump())
        if steps > 1 and found.images:
            self.told.update((image.key, image.version) for image in found.images)
            self.events.append((self.now, list(found.images)))
            self.first_unseen = self.first_unseen or self.now

    def missed(self) -> list[str]:
        """Return the images that still wait for a run when all is quiet."""
        # The last ones may be too few, so that more must come.
        self.waiting |= {f"last {n}": Image(f"last {n}", "https://x") for n in range(4)}
        self.min_images = 1
        self.is_killed, self.fails = False, 0.0
        # One at a time, if need be; what was announced often has a long pause before it.
        self.live(20 * len(self.waiting) + 4 * 1440, comes=0)
        return list(self.waiting)


@pytest.fixture(params=[8, 4_000])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how many announced images may wait."""
    monkeypatch.setattr(announcements, "MAX_ANNOUNCED", request.param)
    return int(request.param)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_missed_and_nothing_announced_twice(seed: int, room: int):
    """Processes are killed between any two steps, and runs begin soon."""
    history = History(seed, slowest=3, is_killed=True)
    history.live(300, comes=0.4)
    assert history.missed() == []
    assert len(history.told) > 20
    assert set(history.told.values()) == {1}


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_missed_whatever_happens(seed: int, room: int):
    """Slow runs, runs that fail, killed processes, images that are replaced and deleted."""
    history = History(seed, slowest=40, is_killed=True, is_replaced=True, fails=0.2)
    history.live(300, comes=0.3)
    assert history.missed() == []

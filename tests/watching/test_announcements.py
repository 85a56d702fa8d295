"""The announcements of an asset watcher: no image is missed or announced twice."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.watching.announcements import (
    BEGINS_WITHIN,
    FIRST_REMINDER,
    LONGEST_REMINDER,
    MAX_ANNOUNCED,
    Announcement,
    AnnouncementState,
    announce,
    image_digest,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NO_STATE = AnnouncementState()


def images(*keys: str, version: str | None = None) -> list[Image]:
    """Return images with these keys."""
    return [Image(key, f"https://x/{key}", version=version) for key in keys]


def ask(
    waiting: Iterable[Image],
    state: AnnouncementState = NO_STATE,
    *,
    min_images: int = 1,
    max_images: int = 10_000,
    now: datetime = NOON,
) -> Announcement:
    """Return the announcement; the state goes through JSON, as Airflow keeps it."""
    kept = AnnouncementState.load(json.loads(json.dumps(state.dump())))
    return announce(waiting, kept, min_images=min_images, max_images=max_images, now=now)


def keys(announcement: Announcement) -> list[str]:
    """Return the keys of the announced images."""
    return [image.key for image in announcement.images]


# -- one watcher ------------------------------------------------------------------------------


def test_a_new_image_is_announced_once():
    """An image that still waits is not announced again; one that comes later is."""
    first = ask(images("a", "b"))
    assert keys(first) == ["a", "b"]
    second = ask(images("a", "b"), first.state)
    assert keys(second) == []
    later = ask(images("a", "b", "c"), second.state, now=NOON + BEGINS_WITHIN)
    assert keys(later) == ["c"]


def test_another_version_is_another_image():
    """A replaced image is announced, and so is one with another key and the same version."""
    first = ask(images("a", version="1"))
    later = [*images("a", version="2"), *images("b", version="1")]
    assert keys(ask(later, first.state)) == ["a", "b"]


def test_an_image_with_labels_leaves_the_state():
    """The state does not grow for ever; an image whose labels were removed is new again."""
    first = ask(images("a", "b", "c"))
    second = ask(images("b"), first.state)
    assert second.state.digests == {image_digest(image) for image in images("b")}
    assert keys(ask(images("a", "b"), second.state)) == ["a"]


def test_too_few_images_are_not_announced():
    """They are announced together when there are enough; images announced before do not count."""
    first = ask(images("a", "b"), min_images=3)
    assert keys(first) == []
    assert first.state == NO_STATE
    second = ask(images("a", "b", "c"), first.state, min_images=3)
    assert keys(second) == ["a", "b", "c"]
    third = ask(images("a", "b", "c", "d", "e"), second.state, min_images=3)
    assert keys(third) == []


def test_no_more_than_max_images_at_a_time():
    """The first in the source's order are announced; the others follow as runs label these."""
    state, announced = NO_STATE, []
    for waiting in ("abcdefg", "bcdefg", "efg", "g"):
        announcement = ask(images(*waiting), state, max_images=3)
        state = announcement.state
        announced.append(keys(announcement))
    assert announced == [["a", "b", "c"], ["d", "e", "f"], ["g"], []]


@pytest.mark.parametrize(("min_images", "max_images"), [(5, 3), (50, 3), (5_000, 500)])
def test_min_images_may_exceed_max_images(min_images: int, max_images: int):
    """The first announcement then has ``max_images`` images."""
    waiting = [Image(f"{number}", "https://x") for number in range(min_images)]
    assert ask(waiting[:-1], min_images=min_images, max_images=max_images).images == ()
    assert len(ask(waiting, min_images=min_images, max_images=max_images).images) == max_images


# -- one announcement at a time ---------------------------------------------------------------


def test_the_next_announcement_waits_until_the_last_was_picked_up():
    """Images of it that have their labels show that its run was started."""
    first = ask(images("a", "b"))
    second = ask(images("a", "b", "c"), first.state, now=NOON + MINUTE)
    assert keys(second) == []
    third = ask(images("b", "c"), second.state, now=NOON + 2 * MINUTE)
    assert keys(third) == ["c"]


def test_a_run_that_does_not_begin_delays_new_images_for_a_while_only():
    """It may have failed; the new images are announced, and only they."""
    first = ask(images("a"))
    soon = ask(images("a", "b"), first.state, now=NOON + BEGINS_WITHIN - MINUTE)
    assert keys(soon) == []
    later = ask(images("a", "b"), soon.state, now=NOON + BEGINS_WITHIN)
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
    """Of a million objects without labels, a watcher reads as many as it announces."""
    endless = Counted([])
    assert len(ask(endless, max_images=20).images) == 20
    assert endless.read == 20


def test_reading_goes_on_until_all_announced_images_were_seen():
    """An image has its labels only if the whole source lacks it; no other images are held."""
    known = images("a", "b")
    first = ask(known)
    endless = Counted([*images("x", "y", "z"), *known])
    second = ask(endless, first.state, max_images=2, now=NOON + BEGINS_WITHIN)
    assert keys(second) == ["x", "y"]
    assert endless.read == 5
    assert {image_digest(image) for image in known} <= second.state.digests


# -- announcements without effect -------------------------------------------------------------


def test_an_image_that_still_waits_is_announced_again_after_ever_longer_pauses():
    """Its announcement was lost, or its run failed; a run that fails each time starts rarely."""
    state = ask(images("a", "b")).state
    minutes = []
    for minute in range(1, 3000):
        announcement = ask(images("b"), state, now=NOON + minute * MINUTE)
        state = announcement.state
        if announcement.images:
            assert keys(announcement) == ["b"]
            minutes.append(minute)
    assert minutes == [30, 90, 210, 450, 930, 1890]


def test_the_longest_pause_is_a_day():
    """An image that waits for weeks is announced each day."""
    now, state = NOON, ask(images("a")).state
    for _ in range(20):
        now += LONGEST_REMINDER
        announcement = ask(images("a"), state, now=now)
        state = announcement.state
        assert keys(announcement) == ["a"]


def test_the_rest_of_an_announcement_is_repeated_without_later_images():
    """Each image has the pause of its own last announcement."""
    first = ask(images("a", "b"))
    second = ask(images("b", "c"), first.state, now=NOON + 20 * MINUTE)
    assert keys(second) == ["c"]
    third = ask(images("b", "c"), second.state, now=NOON + FIRST_REMINDER)
    assert keys(third) == ["b"]
    fourth = ask(images("b", "c"), third.state, now=NOON + FIRST_REMINDER + 20 * MINUTE)
    assert keys(fourth) == ["c"]


def test_a_repeated_announcement_needs_no_min_images():
    """There were enough when it was made first; new images go on waiting for enough."""
    first = ask(images("a", "b"), min_images=2)
    again = ask(images("b", "c"), first.state, min_images=2, now=NOON + FIRST_REMINDER)
    assert keys(again) == ["b"]


def test_new_and_repeated_images_share_an_announcement():
    """It holds up to max_images of both; the rest comes with the next one."""
    first = ask(images("b", "d"))
    both = ask(images("a", "b", "c", "d"), first.state, max_images=3, now=NOON + FIRST_REMINDER)
    assert keys(both) == ["b", "d", "a"]
    rest = ask(images("c", "d"), both.state, now=NOON + FIRST_REMINDER + MINUTE)
    assert keys(rest) == ["c"]


def test_a_clock_that_was_wrong():
    """An image that was announced in the future is announced again, and delays no other."""
    first = ask(images("a"), now=NOON + 30 * LONGEST_REMINDER)
    second = ask(images("a", "b"), first.state)
    assert sorted(keys(second)) == ["a", "b"]


def test_a_lost_announcement_is_repeated():
    """The process was killed after it had saved the announcement, which may have been sent."""
    first = ask(images("a", "b"))
    assert keys(ask(images("a", "b"), first.state, now=NOON + FIRST_REMINDER - MINUTE)) == []
    assert keys(ask(images("a", "b"), first.state, now=NOON + FIRST_REMINDER)) == ["a", "b"]


# -- the maximum of announced images ----------------------------------------------------------


def test_further_images_are_held_back_until_runs_have_labelled_some():
    """The state stays small, however many images the bucket holds, and tells that it is full."""
    waiting = [Image(f"{number:05}", "https://x") for number in range(MAX_ANNOUNCED + 500)]
    first = ask(waiting)
    assert len(first.images) == MAX_ANNOUNCED
    assert first.is_held_back
    full = ask(waiting, first.state)
    assert full.images == ()
    assert full.is_held_back
    third = ask(waiting[200:], full.state)
    assert keys(third) == [f"{number:05}" for number in range(MAX_ANNOUNCED, MAX_ANNOUNCED + 200)]
    assert third.is_held_back
    last = ask(waiting[MAX_ANNOUNCED + 1 :], third.state)
    assert len(last.images) == 300
    assert not last.is_held_back


def test_a_full_state_fits_into_a_value_of_the_asset_state():
    """Airflow advises 64 KB for a value."""
    waiting = [Image(f"{number}", "https://x") for number in range(MAX_ANNOUNCED)]
    state = NO_STATE
    for first in range(0, MAX_ANNOUNCED, 100):
        # The worst case: no run of any announcement has begun.
        digests = {image_digest(image) for image in waiting[first : first + 100]}
        state = state.announced(digests, NOON + first * BEGINS_WITHIN)
    assert len(state.digests) == MAX_ANNOUNCED
    assert len(json.dumps(state.dump())) < 64 * 1024


def test_digests_tell_images_apart():
    """Key and version are told apart, and text that is not UTF-8 is allowed."""
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("a", ""), ("\udcff", ""), ("a", "\udcff")]
    digests = [image_digest(Image(key, "https://x", version=version)) for key, version in pairs]
    digests += [image_digest(Image(f"{number}", "https://x")) for number in range(50_000)]
    assert len(set(digests)) == len(digests)
    assert image_digest(Image("a", "https://x")) == image_digest(Image("a", "s3://y", version=""))


GOOD = {"digests": "", "sent_at": NOON.isoformat(), "times": 1, "is_picked_up": False}
WRONG_STATES: list[Any] = [
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


@pytest.mark.parametrize("value", WRONG_STATES)
def test_a_wrong_state_is_not_taken_for_an_empty_one(value: Any):
    """An empty state would announce all images again."""
    with pytest.raises(ValueError, match=r"."):
        AnnouncementState.load(value)


# -- random histories -------------------------------------------------------------------------


class History:
    """A random course of events: images come and are labelled, and processes are killed.

    :param seed: seed of the random numbers.
    :param slowest: maximum minutes of a run.
    :param is_killed: whether processes are killed.
    :param is_replaced: whether images are replaced and deleted.
    :param fails: probability that a run fails.
    :param max_announced: maximum number of announced images that wait for labels.
    """

    def __init__(
        self,
        seed: int,
        *,
        slowest: int,
        is_killed: bool,
        is_replaced: bool = False,
        fails: float = 0.0,
        max_announced: int,
    ) -> None:
        self.chance = random.Random(seed)
        self.max_announced = max_announced
        self.slowest, self.is_killed = slowest, is_killed
        self.is_replaced, self.fails = is_replaced, fails
        self.now = NOON
        self.waiting: dict[str, Image] = {}
        self.state = json.dumps(NO_STATE.dump())
        self.announced: Counter[tuple[str, str | None]] = Counter()
        self.runs: list[tuple[datetime, list[Image]]] = []
        self.events: list[tuple[datetime, list[Image]]] = []
        self.first_unprocessed: datetime | None = None
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
            self._watch()

    def _label(self) -> None:
        for run in [run for run in self.runs if run[0] <= self.now]:
            self.runs.remove(run)
            if self.chance.random() < self.fails:
                continue
            for image in run[1]:
                if self.waiting.get(image.key) == image:
                    del self.waiting[image.key]

    def _schedule(self) -> None:
        """Act as Airflow's scheduler: one run for the events up to the first unprocessed one.

        Events that came later, before the scheduler's turn, wait for another event.
        """
        if self.first_unprocessed is None or self.chance.random() < 0.3:
            return
        taken = [event for event in self.events if event[0] <= self.first_unprocessed]
        self.events = [event for event in self.events if event not in taken]
        self.first_unprocessed = None
        delay = MINUTE * self.chance.uniform(0, self.slowest)
        self.runs.append((self.now + delay, [image for _, batch in taken for image in batch]))

    def _watch(self) -> None:
        """Act as the trigger, whose process may be killed after each step."""
        steps = self.chance.randrange(3) if self.is_killed and self.chance.random() < 0.2 else 9
        announcement = announce(
            self.chance.sample(list(self.waiting.values()), len(self.waiting)),
            AnnouncementState.load(json.loads(self.state)),
            min_images=self.min_images,
            max_images=self.max_images,
            now=self.now,
            max_announced=self.max_announced,
        )
        if steps > 0:
            self.state = json.dumps(announcement.state.dump())
        if steps > 1 and announcement.images:
            self.announced.update((image.key, image.version) for image in announcement.images)
            self.events.append((self.now, list(announcement.images)))
            self.first_unprocessed = self.first_unprocessed or self.now

    def missed(self) -> list[str]:
        """Return the images that still wait when no more come and no process is killed."""
        # The last images may be too few for an announcement.
        self.waiting |= {f"last {n}": Image(f"last {n}", "https://x") for n in range(4)}
        self.min_images = 1
        self.is_killed, self.fails = False, 0.0
        # There may be one image in each announcement, and days between two reminders.
        self.live(20 * len(self.waiting) + 4 * 1440, comes=0)
        return list(self.waiting)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("max_announced", [8, MAX_ANNOUNCED])
def test_each_image_is_announced_once(seed: int, max_announced: int):
    """Processes are killed between any two steps, and runs begin soon."""
    history = History(seed, slowest=3, is_killed=True, max_announced=max_announced)
    history.live(300, comes=0.4)
    assert history.missed() == []
    assert len(history.announced) > 20
    assert set(history.announced.values()) == {1}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("max_announced", [8, MAX_ANNOUNCED])
def test_no_image_is_missed(seed: int, max_announced: int):
    """Runs are slow or fail, processes are killed, images are replaced and deleted."""
    history = History(
        seed,
        slowest=40,
        is_killed=True,
        is_replaced=True,
        fails=0.2,
        max_announced=max_announced,
    )
    history.live(300, comes=0.3)
    assert history.missed() == []

"""Messages of a long computation while it runs: a tqdm bar in a terminal, or else a line every ten seconds."""

import sys
import time

SILENCE = 10  # seconds: a program that prints nothing for longer seems to hang


class Clock:
    """The time of the last message. There is one for the whole process, so that many short trainings print lines too."""

    def __init__(self):
        self.spoken = self.alive = -SILENCE

    def start(self):
        """Note that a computation begins. After a pause in which nothing ran, the ten seconds count from now."""
        now = time.perf_counter()
        if now - self.alive > SILENCE:
            self.spoken = now
        self.alive = now

    def say(self, line):
        """Print the line on standard error if the last message is more than ten seconds old."""
        self.alive = time.perf_counter()
        if self.alive - self.spoken > SILENCE:
            print(line, file=sys.stderr, flush=True)
            self.spoken = self.alive


CLOCK = Clock()


def new_bar(total, unit, show, description=None):
    """A tqdm bar, or None if there is no terminal or no tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    if show and sys.stderr is not None and sys.stderr.isatty():
        return tqdm(total=total, desc=description, unit=unit, leave=False, dynamic_ncols=True)
    return None


def told(items, what, total=None):
    """Yields the items. A bar, or a line every ten seconds, shows how many of them are done.

    what: the name of one item, such as "seed". total: the number of items, if they have no length.
    """
    total = len(items) if total is None else total
    bar = new_bar(total, what, True)
    CLOCK.start()
    try:
        for done, item in enumerate(items, 1):
            yield item
            if bar:
                bar.update()
            else:
                CLOCK.say(f"{what} {done} of {total} done")
    finally:
        if bar:
            bar.close()


class Progress:
    """with Progress(steps per epoch, first epoch, epochs, show) as progress: progress.steps(n, losses), progress.epoch(row).

    first: the number of the next epoch, which is not 1 after a resume.
    """

    def __init__(self, n_steps, first, n_epochs, show):
        self.n_steps, self.n_epochs, self.show = n_steps, n_epochs, show
        self.now, self.done = first, 0  # the present epoch, and how many of its steps are done
        self.first, self.total, self.started = first, (n_epochs - first + 1) * n_steps, time.perf_counter()
        self.bar = new_bar(self.total, "step", show, self.which())
        CLOCK.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar:
            self.bar.close()

    def which(self):
        return f"epoch {min(self.now, self.n_epochs)} of {self.n_epochs}"

    def steps(self, n, losses):
        """Show that n more steps are done. losses: {name: mean over the epoch so far}."""
        self.done += n
        if self.bar:
            self.bar.set_postfix(shown(losses), refresh=False)
            self.bar.update(n)
        elif self.show and self.done < self.n_steps:  # after the last step, epoch() prints a line
            self.say(f"{self.which()}, step {self.done} of {self.n_steps}", losses)

    def epoch(self, row):
        """Show that one more epoch is done. row: its row of the history."""
        which, self.now, self.done = self.which(), self.now + 1, 0
        if self.show and not self.bar:
            self.say(which, row)
        if self.bar:
            self.bar.set_description(self.which(), refresh=False)

    def say(self, where, numbers):
        numbers = ", ".join(f"{name} {value}" for name, value in shown(numbers).items())
        CLOCK.say(f"{where}: {numbers}{self.time_left()}")

    def time_left(self):
        """ "; about 40 s left", if the rest is as fast as what is done; "" at the end."""
        done = (self.now - self.first) * self.n_steps + self.done
        seconds = (time.perf_counter() - self.started) * (self.total / max(1, done) - 1)
        return f"; about {duration(seconds)} left" if done < self.total else ""

    def warn(self, lines, when):
        """Print what the doctor says, with the time, also where progress is not shown."""
        for line in lines:
            line = f"{when}: {line}"
            self.bar.write(line, file=sys.stderr) if self.bar else print(line, file=sys.stderr, flush=True)


def duration(seconds):
    """Seconds in words: "40 s", "5 min" or "1.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown(row):
    """{name: text} of a row's numbers, without the epoch and the seconds."""
    return {name: f"{value:.4g}" for name, value in row.items() if name not in ("epoch", "seconds")}

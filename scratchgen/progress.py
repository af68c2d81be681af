"""What a training run says while it runs: a tqdm bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time

SILENCE = 10  # seconds: a program that says nothing for longer looks hung


class Progress:
    """with Progress(total steps, epochs, show) as progress: progress.steps(n, losses), progress.epoch(row)."""

    def __init__(self, n_steps, n_epochs, show):
        self.n_epochs, self.show, self.bar, self.spoken = n_epochs, show, None, time.perf_counter()
        self.complained = False
        try:
            from tqdm import tqdm
        except ImportError:
            return
        if show and sys.stderr.isatty():
            self.bar = tqdm(total=n_steps, unit="step", leave=False, dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar:
            self.bar.close()

    def steps(self, n, losses):
        """n more steps are done; losses: {name: mean of the epoch so far}."""
        if self.bar:
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)
            self.bar.update(n)

    def epoch(self, row):
        """One more epoch is done; row: its row of the history."""
        if self.show and not self.bar and time.perf_counter() - self.spoken > SILENCE:
            found = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "seconds"))
            print(f"epoch {row['epoch']} of {self.n_epochs}: {found}", file=sys.stderr, flush=True)
            self.spoken = time.perf_counter()

    def complain(self, line, epoch, step):
        """Something looks wrong: said once a run, by a line that stays."""
        if line and self.show and not self.complained:
            self.complained = True
            line = f"epoch {epoch}, step {step}: {line}"
            self.bar.write(line, file=sys.stderr) if self.bar else print(line, file=sys.stderr, flush=True)

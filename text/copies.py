"""Which runs of tokens a text shares with a corpus, so that memorising is seen (no torch).

The few texts become a suffix automaton (Blumer et al. 1985). The corpus is streamed through it
once, with a step or two of work per token. It is not kept, so its size does not matter.
"""

from collections.abc import Iterable, Sequence

import numpy as np


class Copies:
    """The automaton of some texts: `read` the corpus, piece by piece, then ask for `runs`."""

    def __init__(self, texts: Sequence[Sequence[int]]):
        # State 0 is the empty string. A state is a class of substrings that end at the same
        # places of the texts.
        # link: the state of the longest suffix that ends at more places. length: tokens of the
        # longest substring of the state.
        self.next: list[dict[int, int]] = [{}]
        self.link, self.length = [-1], [0]
        self.ends = [self.add(text) for text in texts]
        # By state, the longest of its substrings that the corpus holds.
        self.seen = [0] * len(self.next)
        self.settled = True

    def add(self, text: Sequence[int]) -> list[int]:
        """Add a text; return the state of each of its prefixes."""
        # Each text starts again at the empty string: no run may reach from one text into the next.
        last, path = 0, []
        for token in text:
            last = self.extend(last, int(token))
            path.append(last)
        return path

    def extend(self, last: int, token: int) -> int:
        """The state of (string of `last`) + token."""
        known = self.next[last].get(token)
        # An earlier text may hold this string already: the automaton is of several texts.
        if known is not None:
            return (
                known
                if self.length[known] == self.length[last] + 1
                else self.clone(last, known, token)
            )
        new = self.state({}, self.length[last] + 1, 0)
        # -1 is the link of state 0, so it ends the walk over the suffixes.
        while last >= 0 and token not in self.next[last]:
            self.next[last][token] = new
            last = self.link[last]
        if last >= 0:
            known = self.next[last][token]
            self.link[new] = (
                known
                if self.length[known] == self.length[last] + 1
                else self.clone(last, known, token)
            )
        return new

    def state(self, edges: dict[int, int], length: int, link: int) -> int:
        self.next.append(edges)
        self.length.append(length)
        self.link.append(link)
        return len(self.next) - 1

    def clone(self, last: int, known: int, token: int) -> int:
        """Split off the shorter substrings of `known`: they now end at more places."""
        # A copy of the edges: both states go on to the same strings, but later they may differ.
        new = self.state(dict(self.next[known]), self.length[last] + 1, self.link[known])
        self.link[known] = new
        while last >= 0 and self.next[last].get(token) == known:
            self.next[last][token] = new
            last = self.link[last]
        return new

    def read(self, tokens: Iterable[int]) -> None:
        """A stretch of the corpus. Matches do not reach over its end."""
        # Local names: this loop runs once per token of the corpus, and attribute look-ups add up.
        following, link, length, seen = self.next, self.link, self.length, self.seen
        state = matched = 0
        for token in tokens:
            target = following[state].get(token)
            # Shorten the match until it can be continued. Each round drops tokens that were matched
            # before, so the work per token is constant on average.
            while target is None and state:
                state = link[state]
                matched = length[state]
                target = following[state].get(token)
            # The token stands in no text: state and matched are 0 here, an empty match.
            if target is None:
                continue
            state, matched = target, matched + 1
            if matched > seen[state]:
                seen[state] = matched
        self.settled = False

    def settle(self) -> None:
        """Pass what was seen on to shorter substrings: the end of a held run is held too."""
        # Longest first, so a state has all its marks before it passes them on.
        states = sorted(range(1, len(self.next)), key=self.length.__getitem__, reverse=True)
        for state in states:
            if self.seen[state]:
                shorter = self.link[state]
                # A state's substrings are longer than its suffix, so the whole suffix was seen.
                self.seen[shorter] = self.length[shorter]
        self.settled = True

    def runs(self, number: int) -> np.ndarray:
        """For each token of a text, the longest run of the corpus that ends there: (n,) int64."""
        if not self.settled:
            self.settle()
        result = []
        for state in self.ends[number]:
            # The text's prefix was never seen, but a suffix of it may have been.
            while state and not self.seen[state]:
                state = self.link[state]
            result.append(self.seen[state])
        return np.array(result, dtype=np.int64)


def rates(runs: Sequence[np.ndarray], least: int = 16) -> dict[str, float]:
    """The longest run (mean and maximum over texts), and the share of tokens in long runs.

    runs: of each text, as `Copies.runs` gives them. least: tokens of a long run.
    """
    longest = [int(lengths.max(initial=0)) for lengths in runs]
    copied = total = 0
    for lengths in runs:
        inside = np.zeros(len(lengths), dtype=bool)
        # Runs overlap, so their tokens are marked, not added up.
        for end in np.flatnonzero(lengths >= least):
            inside[end + 1 - lengths[end] : end + 1] = True
        copied += int(inside.sum())
        total += len(lengths)
    return {
        "longest_copy_mean": float(np.mean(longest)),
        "longest_copy_max": float(max(longest)),
        "copied_share": copied / max(1, total),
    }

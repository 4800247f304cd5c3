"""Progress: to a function, or to tqdm where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Optional, Union

#: A function that is called with the share that is done, from 0 to 1; True for a bar of tqdm where it is installed.
Progress = Union[None, bool, Callable[[float], object]]


@contextmanager
def reporter(progress: Progress, title: str) -> Iterator[Optional[Callable[[float], object]]]:
    """The function that is told of progress."""
    if progress is None or progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield None
        return
    with tqdm(total=100, desc=title, unit="%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as bar:

        def report(done: float) -> None:
            bar.update(round(100 * done) - bar.n)

        yield report

"""What studies return: arrays with names, pictures and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _native

if TYPE_CHECKING:
    import pandas

Floats = npt.NDArray[np.float32]

#: Pixels of a picture in a notebook for each of its units.
_SCALE = 2.0


@dataclass(frozen=True)
class Grid:
    """Numbers over named axes."""

    name: str
    values: Floats
    #: What each axis counts: ``("layer", "pos")``.
    axes: tuple[str, ...]
    #: The layers, positions or heads along each axis.
    places: tuple[tuple[int, ...], ...]
    #: A label for each of them: the tokens of positions.
    labels: tuple[tuple[str, ...], ...]
    #: What a value is.
    value_label: str
    #: What explains the values in words.
    legend: tuple[str, ...]

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row for each number: its place on each axis, the tokens of positions, and the value. Needs pandas."""
        import pandas

        index = np.indices(self.values.shape).reshape(self.values.ndim, -1)
        columns: dict[str, Any] = {}
        for axis, places, labels, along in zip(self.axes, self.places, self.labels, index):
            is_numbered = all(label == str(place) for label, place in zip(labels, places))
            columns[axis] = np.array(places)[along]
            if not is_numbered:
                columns[f"{axis}_label"] = np.array(labels, dtype=object)[along]
        columns["value"] = self.values.ravel()
        return pandas.DataFrame(columns)


class Result(Mapping[str, Grid]):
    """What a study came to. ``values``, ``axes`` and ``labels`` are those of its main grid; ``result[name]`` is a grid.

    At the end of a notebook's cell it shows its picture.
    """

    def __init__(self, native: _native.Study) -> None:
        self._native = native
        self._grids: dict[str, Grid] = {}
        self._facts: Optional[dict[str, Any]] = None

    def __getitem__(self, name: str) -> Grid:
        if name not in self._grids:
            if name not in self._native.names:
                raise KeyError(f"there is no grid {name!r}; give one of {', '.join(self._native.names)}")
            axes, value_label, legend = self._native.words(name)
            self._grids[name] = Grid(
                name,
                self._native.values(name),
                tuple(axis for axis, _, _ in axes),
                tuple(tuple(places) for _, places, _ in axes),
                tuple(tuple(labels) for _, _, labels in axes),
                value_label,
                tuple(legend),
            )
        return self._grids[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._native.names)

    def __len__(self) -> int:
        return len(self._native.names)

    @property
    def grid(self) -> Grid:
        """The main grid."""
        return self[self._native.main]

    @property
    def values(self) -> Floats:  # type: ignore[override]
        """The numbers of the main grid."""
        return self.grid.values

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis of the main grid counts."""
        return self.grid.axes

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The labels along each axis of the main grid."""
        return self.grid.labels

    @property
    def title(self) -> str:
        """The heading."""
        return self._native.title

    @property
    def facts(self) -> dict[str, Any]:
        """What JSON says beside the grids."""
        if self._facts is None:
            self._facts = self.to_dict()
            del self._facts["grids"]
        return self._facts

    @property
    def clean_metric(self) -> float:
        """The metric of the clean run, unpatched; of many pairs the mean."""
        return float(self.facts["clean_metric"])

    @property
    def corrupted_metric(self) -> float:
        """The metric of the corrupted run, unpatched; of many pairs the mean."""
        return float(self.facts["corrupted_metric"])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as the command line prints it with ``--json``."""
        import json

        everything: dict[str, Any] = json.loads(self._native.json())
        return everything

    def to_dataframe(self, grid: Optional[str] = None) -> "pandas.DataFrame":
        """A row for each number of a grid. Needs pandas."""
        return (self.grid if grid is None else self[grid]).to_dataframe()

    def save(
        self, path: Union[str, "os.PathLike[str]"], *, grid: Optional[str] = None, scale: Optional[float] = None
    ) -> None:
        """Writes a file in the form that its name ends in: .png, .svg, .json, .csv, .npy or .safetensors.

        ``grid`` is the grid of an .npy file, which holds one; ``scale`` are pixels per unit of a PNG.
        """
        self._native.save(os.fspath(path), grid, scale)

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    def __repr__(self) -> str:
        shape = " × ".join(f"{n} {axis}" for n, axis in zip(self.values.shape, self.axes))
        return f"<{type(self).__name__}: {self.title}; {shape}>"

    def _repr_png_(self) -> bytes:
        return self._native.png(_SCALE)

    def _repr_html_(self) -> str:
        import base64
        import html

        png = self._repr_png_()
        width = int.from_bytes(png[16:20], "big") / _SCALE
        encoded = base64.b64encode(png).decode()
        title = html.escape(self.title, quote=True)
        return f'<img alt="{title}" width="{width:.0f}" src="data:image/png;base64,{encoded}">'

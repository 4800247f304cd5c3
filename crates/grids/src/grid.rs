//! Grids and their axes.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// The most axes of a grid, as of an array of NumPy.
pub const MAX_AXES: usize = 64;

/// Numbers with named axes, and the words to draw them with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// What it is called among the grids of its study: short and unique, such as `resid_post`.
    pub name: String,
    /// The heading of its figure; empty for that of the study.
    #[serde(default)]
    pub title: String,
    /// How it is drawn.
    #[serde(default)]
    pub form: Form,
    /// The axes; the last one runs fastest.
    pub axes: Vec<AxisLabels>,
    /// The numbers, row-major: one for each index of every axis.
    #[serde(default, deserialize_with = "null_is_nan")]
    pub values: Vec<f32>,
    /// A token for each value, to be written in the cells of a figure in the place of the numbers; empty for
    /// the numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// What a value is, for example `logit(" Smith") − logit(" Jones")`.
    #[serde(default)]
    pub value_label: String,
    /// The value that has the middle colour, for example 0 for differences. A file cannot keep one that
    /// is not finite.
    #[serde(default, deserialize_with = "finite")]
    pub center: Option<f32>,
    /// What is marked along one axis.
    #[serde(default)]
    pub highlight: Option<Highlight>,
    /// A line or two that explain the sign.
    #[serde(default)]
    pub legend: Vec<String>,
}

/// How a grid is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As coloured cells; a grid of one axis as a line.
    #[default]
    Heatmap,
    /// As lines over the last axis, one for each index of the axis before it.
    Lines,
}

/// An axis of a grid: what it counts, and what each index stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisLabels {
    /// `layer`, `pos`, `head`, `dest`, `src`, `token`, `answer` or another short name.
    pub name: String,
    /// The layers, positions or heads that the indices stand for; empty if they are all, from 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<usize>,
    /// A label for each index: the raw text of the token for `pos`, `dest`, `src`, `token`, `answer`.
    pub labels: Vec<String>,
}

/// Places along an axis that matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Highlight {
    /// The name of the axis.
    pub axis: String,
    /// The indices along it.
    pub indices: Vec<usize>,
    /// What they have in common, for example `the prompts differ here`.
    pub label: String,
}

impl AxisLabels {
    /// An axis with these labels.
    pub fn new(name: &str, labels: impl IntoIterator<Item = String>) -> Self {
        Self::at(name, Vec::new(), labels)
    }

    /// An axis along some places only.
    pub fn at(name: &str, places: Vec<usize>, labels: impl IntoIterator<Item = String>) -> Self {
        let all = places.iter().copied().eq(0..places.len());
        Self {
            name: name.to_owned(),
            places: if all { Vec::new() } else { places },
            labels: labels.into_iter().collect(),
        }
    }

    /// The layer, position or head at an index.
    pub fn place(&self, index: usize) -> usize {
        self.places.get(index).copied().unwrap_or(index)
    }

    /// The label at an index, with its place where that differs from the index.
    pub fn full_label(&self, index: usize) -> String {
        let label = &self.labels[index];
        if self.places.is_empty() || *label == self.place(index).to_string() {
            label.clone()
        } else {
            format!("{}:{label}", self.place(index))
        }
    }

    /// An axis of `length` whose labels are the indices, from 0.
    pub fn indices(name: &str, length: usize) -> Self {
        Self::new(name, (0..length).map(|index| index.to_string()))
    }

    /// Whether the labels say no more than the index.
    pub fn is_numbered(&self) -> bool {
        let mut labels = self.labels.iter().enumerate();
        labels.all(|(index, label)| *label == self.place(index).to_string())
    }

    /// Whether the labels are the tokens of a prompt.
    pub fn has_tokens(&self) -> bool {
        let of_tokens = ["pos", "dest", "src", "token", "answer"];
        of_tokens.contains(&self.name.as_str()) && !self.is_numbered()
    }
}

impl Grid {
    /// The length of each axis.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.labels.len()).collect()
    }

    /// Whether there is one value for each index of every axis, any at all, with a text each or none, and
    /// at most [`MAX_AXES`] axes.
    ///
    /// # Errors
    /// With the shape and the number of values: a file may say anything.
    pub fn check(&self) -> Result<(), Error> {
        self.check_words()?;
        let shape = self.shape();
        let cells = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        let (grid, texts, values) = (self.name.clone(), self.texts.len(), self.values.len());
        if cells != Some(values) {
            Err(Error::OtherCount { grid, shape, values })
        } else if values == 0 {
            Err(Error::Empty { grid, shape })
        } else if ![0, values].contains(&texts) {
            Err(Error::OtherTexts { grid, texts, values })
        } else {
            Ok(())
        }
    }

    /// [`check`](Self::check) without the numbers, which may be elsewhere.
    pub(crate) fn check_words(&self) -> Result<(), Error> {
        if self.axes.len() > MAX_AXES {
            Err(Error::TooManyAxes { grid: self.name.clone(), axes: self.axes.len() })
        } else {
            Ok(())
        }
    }

    /// Whether each axis has a name of its own, without which a table cannot tell them apart.
    pub(crate) fn check_axes(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        match self.axes.iter().find(|axis| !names.insert(&axis.name)) {
            Some(axis) => Err(Error::AxisTwice { grid: self.name.clone(), axis: axis.name.clone() }),
            None => Ok(()),
        }
    }

    /// Whether the axes have real names: numbers without a description have `axis0`, `axis1` and so on.
    pub fn has_known_axes(&self) -> bool {
        let mut axes = self.axes.iter().enumerate();
        self.axes.is_empty() || !axes.all(|(at, axis)| axis.name == unknown_axis(at) && axis.is_numbered())
    }

    /// The index along each axis of the value at `place` among the values.
    pub fn index_of(&self, mut place: usize) -> Vec<usize> {
        let mut index = vec![0; self.axes.len()];
        for (at, axis) in index.iter_mut().zip(&self.axes).rev() {
            let length = axis.labels.len().max(1);
            (*at, place) = (place % length, place / length);
        }
        index
    }

    /// The part of this grid at one index of an axis, without that axis.
    ///
    /// # Errors
    /// If there is no such axis or index, with those that there are.
    pub fn select(&self, axis: &str, index: usize) -> Result<Self, Error> {
        let Some(at) = self.axes.iter().position(|found| found.name == axis) else {
            return Err(Error::NoSuchAxis {
                grid: self.name.clone(),
                axis: axis.to_owned(),
                axes: self.axes.iter().map(|axis| axis.name.clone()).collect(),
            });
        };
        let length = self.axes[at].labels.len();
        if index >= length {
            return Err(Error::NoSuchIndex { grid: self.name.clone(), axis: axis.to_owned(), index, length });
        }
        self.check()?;
        let is_part = |place: &usize| self.index_of(*place)[at] == index;
        let places: Vec<usize> = (0..self.values.len()).filter(is_part).collect();
        let mut part = self.with_values_at(&places);
        part.axes.remove(at);
        Ok(part)
    }

    /// This grid with its axes in the order in which `axes` names them; as it is if they are not the
    /// same ones, or two of them have one name.
    pub(crate) fn in_order_of(self, axes: &[AxisLabels]) -> Self {
        let own = |axis: &AxisLabels| self.axes.iter().position(|own| own.name == axis.name);
        let order: Option<Vec<usize>> = axes.iter().map(own).collect();
        let order = match order {
            Some(order) if is_permutation(&order, self.axes.len()) && !order.is_sorted() => order,
            _ => return self,
        };
        let shape = self.shape();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let axes = order.iter().map(|&axis| self.axes[axis].clone()).collect();
        let turned = Self { axes, ..Self::default() };
        let place = |place: usize| {
            let index = turned.index_of(place);
            let steps = index.iter().zip(&order);
            steps.map(|(index, &axis)| index * strides[axis]).sum()
        };
        let places: Vec<usize> = (0..self.values.len()).map(place).collect();
        Self { axes: turned.axes, ..self.with_values_at(&places) }
    }

    /// This grid with the values, and their texts, that stand at these places.
    fn with_values_at(&self, places: &[usize]) -> Self {
        let texts = places.iter().filter_map(|&place| self.texts.get(place));
        Self {
            values: places.iter().map(|&place| self.values[place]).collect(),
            texts: texts.cloned().collect(),
            ..self.clone()
        }
    }
}

/// JSON has no number for NaN and infinity, and `null` is written instead.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<Option<f32>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect())
}

/// A number that does not fit into an `f32` is infinite there, and would be `null` when it is written.
fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    let value = Option::<f32>::deserialize(deserializer)?;
    Ok(value.filter(|value| value.is_finite()))
}

/// The name of an axis that has none, by its place.
pub(crate) fn unknown_axis(at: usize) -> String {
    format!("axis{at}")
}

/// Whether `order` holds each of `0..length` once.
fn is_permutation(order: &[usize], length: usize) -> bool {
    let places: HashSet<usize> = order.iter().copied().collect();
    // Every place is below `length`, being that of an axis.
    order.len() == length && places.len() == length
}

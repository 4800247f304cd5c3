//! Points over two axes.

use std::collections::HashSet;

use super::lines::{GRID_LINE, Key, series_color};
use super::*;
use crate::scatter::Scatter;
use crate::scene::Dots;

/// The side of the square field.
const FIELD: f32 = 380.0;
/// About one tick for each of these lengths.
const TICK_DISTANCE: f32 = 55.0;
/// Of more points those that fall on the same half unit are drawn once.
const MOST_EXACT_POINTS: usize = 2_000;

/// Arranges a scatter plot: the square field with the diagonal, the scale to its left and below, and the key to
/// its right.
pub(super) fn layout(scatter: &Scatter, mut setter: Typesetter) -> Scene {
    let axes = Axes::new(scatter, &mut setter);
    let y_label = setter.wrap(&visible_line(&scatter.y_label), AXIS_SIZE, Weight::Regular, FIELD);
    let label_width = y_label.len() as f32 * AXIS_SIZE * LINE_HEIGHT;
    let names: Vec<&str> = scatter.groups.iter().map(|(name, _)| &**name).collect();
    // (One group needs no name.)
    let names = if names.len() < 2 { &[] } else { &*names };
    let key = Key::new("", names, FIELD, &mut setter).with_dots(3.0);
    let left = MARGIN + label_width + SMALL_GAP + axes.width + BAR_TICK + 2.0;
    let content = left + FIELD + key.width().max(axes.width / 2.0) + MARGIN;
    let width = content.max(LEAST_WIDTH).ceil();
    let shift = ((width - content) / 2.0).floor();

    let mut drawing = Drawing { setter, margin: MARGIN, scene: Scene { width, ..Scene::default() } };
    let y = drawing.heading(&scatter.title, &scatter.subtitle, width);
    let field = Rect { x: (left + shift).ceil(), y, w: FIELD, h: FIELD, fill: FRAME };
    drawing.axes(&axes, &field);
    drawing.points(scatter, &axes, &field);
    let mut x = MARGIN + shift;
    for line in y_label {
        drawing.upright_text(line, [x + AXIS_SIZE * ASCENT, y + FIELD / 2.0], SOFT_INK);
        x += AXIS_SIZE * LINE_HEIGHT;
    }
    let bottom = drawing.x_axis(scatter, &axes, &field).max(drawing.key(&key, [field.x + FIELD, y]));
    let notes = Heatmap { legend: scatter.notes(), ..Heatmap::default() };
    drawing.scene.height = (drawing.legend(&notes, bottom) + MARGIN).ceil();
    drawing.scene
}

/// The scale that both axes have.
struct Axes {
    range: ValueRange,
    /// Where each tick stands, from the lower end (0) to the upper (1), and its number.
    ticks: Vec<(f32, String)>,
    /// The width of the widest number.
    width: f32,
}

impl Axes {
    fn new(scatter: &Scatter, setter: &mut Typesetter) -> Self {
        let range = scatter.range();
        let most = (FIELD / TICK_DISTANCE) as usize;
        let (ticks, step) = round_ticks(range.low.into(), range.high.into(), most);
        let style = NumberStyle::for_step(step);
        let tick = |tick: f64| (range.fraction(tick as f32), style.typeset(tick));
        let ticks: Vec<(f32, String)> = ticks.into_iter().map(tick).collect();
        let widths = ticks.iter().map(|(_, text)| setter.width(text, TICK_SIZE, Weight::Regular));
        Self { range, width: widest(widths), ticks }
    }

    /// Where a point lies in the field.
    fn place(&self, [x, y]: [f32; 2], field: &Rect) -> [f32; 2] {
        [field.x + self.range.fraction(x) * field.w, field.y + (1.0 - self.range.fraction(y)) * field.h]
    }
}

impl Drawing {
    /// The frame, the lines of the ticks, the numbers of the upright axis, and the diagonal.
    fn axes(&mut self, axes: &Axes, field: &Rect) {
        let (right, bottom) = (field.x + field.w, field.y + field.h);
        let mut line = |from: [f32; 2], to: [f32; 2], width: f32, color: Rgb| {
            self.scene.items.push(Item::Line(Line { from, to, width, color }));
        };
        for (fraction, _) in &axes.ticks {
            let (x, y) = (field.x + fraction * field.w, bottom - fraction * field.h);
            line([field.x, y], [right, y], 0.7, GRID_LINE);
            line([x, field.y], [x, bottom], 0.7, GRID_LINE);
            line([field.x - BAR_TICK, y], [field.x, y], 1.0, FRAME);
            line([x, bottom], [x, bottom + BAR_TICK], 1.0, FRAME);
        }
        line([field.x, bottom], [right, field.y], 1.0, SOFT_INK);
        for (fraction, text) in &axes.ticks {
            let y = bottom - fraction * field.h + TICK_SIZE * CAP_HEIGHT / 2.0;
            let place = [field.x - BAR_TICK - 2.0, y];
            self.text(text.clone(), place, TICK_SIZE, Anchor::End, INK, Weight::Regular);
        }
        self.frame(&Rect {
            x: field.x - 0.5,
            y: field.y - 0.5,
            w: field.w + 1.0,
            h: field.h + 1.0,
            fill: FRAME,
        });
    }

    /// The points of each group: the more of them, the smaller.
    fn points(&mut self, scatter: &Scatter, axes: &Axes, field: &Rect) {
        let count: usize = scatter.drawn().map(Iterator::count).sum();
        let radius = dot_radius(count);
        for (index, points) in scatter.drawn().enumerate() {
            let mut centers: Vec<[f32; 2]> = points.map(|point| axes.place(point, field)).collect();
            if count > MOST_EXACT_POINTS {
                let mut seen = HashSet::new();
                let snap = |at: f32| (at * 2.0).round();
                centers.retain_mut(|center| {
                    let [x, y] = center.map(snap);
                    *center = [x / 2.0, y / 2.0];
                    seen.insert((x as i32, y as i32))
                });
            }
            let fill = series_color(index, scatter.groups.len());
            if !centers.is_empty() {
                self.scene.items.push(Item::Dots(Dots { centers, radius, fill }));
            }
        }
    }

    /// The numbers below the field and the words under them.
    fn x_axis(&mut self, scatter: &Scatter, axes: &Axes, field: &Rect) -> f32 {
        let mut y = field.y + field.h + BAR_TICK + 2.0;
        for (fraction, text) in &axes.ticks {
            let place = [field.x + fraction * field.w, y + TICK_SIZE * ASCENT];
            self.text(text.clone(), place, TICK_SIZE, Anchor::Middle, INK, Weight::Regular);
        }
        y += TICK_SIZE * LINE_HEIGHT + SMALL_GAP;
        let words = visible_line(&scatter.x_label);
        for line in self.setter.wrap(&words, AXIS_SIZE, Weight::Regular, FIELD) {
            let place = [field.x + field.w / 2.0, y + AXIS_SIZE * ASCENT];
            self.text(line, place, AXIS_SIZE, Anchor::Middle, SOFT_INK, Weight::Regular);
            y += AXIS_SIZE * LINE_HEIGHT;
        }
        y
    }
}

/// The radius of the dots for so many points.
fn dot_radius(count: usize) -> f32 {
    match count {
        0..=200 => 2.6,
        201..=2_000 => 1.9,
        2_001..=10_000 => 1.3,
        _ => 0.9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scatter(count: usize) -> Scatter {
        let noise = |i: usize| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5;
        let point = |i: usize| [noise(i) + noise(i / 1009) * 0.2, noise(i)];
        Scatter { groups: vec![(String::new(), (0..count).map(point).collect())], ..Scatter::default() }
    }

    fn centers(scene: &Scene) -> usize {
        let dots = scene.items.iter();
        dots.map(|item| if let Item::Dots(dots) = item { dots.centers.len() } else { 0 }).sum()
    }

    #[test]
    fn of_many_points_those_on_one_pixel_are_drawn_once() {
        let fonts = Fonts::default();
        let scene = |count| layout(&scatter(count), Typesetter::new(&fonts));
        assert_eq!(centers(&scene(2_000)), 2_000);
        let many = scene(40_000);
        assert!(centers(&many) < 40_000);
        let svg = crate::render_svg(&many, &fonts, &[]).unwrap();
        assert!(svg.len() < 600_000, "{}", svg.len());
    }

    #[test]
    fn a_point_with_equal_numbers_lies_on_the_diagonal() {
        let fonts = Fonts::default();
        let mut setter = Typesetter::new(&fonts);
        let axes = Axes::new(&scatter(100), &mut setter);
        let field = Rect { x: 10.0, y: 20.0, w: FIELD, h: FIELD, fill: FRAME };
        let [x, y] = axes.place([0.25, 0.25], &field);
        assert!(((x - 10.0) - (20.0 + FIELD - y)).abs() < 1e-3);
    }
}

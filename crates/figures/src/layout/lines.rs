//! Lines over an axis.

use super::*;
use crate::figure::LineChart;
use crate::scene::Dots;

/// The height of the field with the lines.
const FIELD_HEIGHT: f32 = 300.0;
const LINE_WIDTH: f32 = 1.8;
const CENTER_WIDTH: f32 = 1.0;
/// Half the side of the square at each point of a line.
const DOT: f32 = 2.2;
/// Points closer than this have no squares.
const LEAST_DOT_DISTANCE: f32 = 12.0;
/// The length of the piece of line in the key.
const KEY_LINE: f32 = 18.0;
/// A name in the key is cut beyond this length.
const LONGEST_NAME: f32 = 170.0;
pub(super) const GRID_LINE: Rgb = [225, 225, 225];
/// The width of the field where the axis below it is a scale.
const SCALE_WIDTH: f32 = 560.0;
/// How many ticks such a scale has at most.
const MOST_TICKS: usize = 8;

/// Arranges a chart: the field with lines, a scale to its left, the points of the axis below, and the
/// key to its right.
pub(super) fn layout(chart: &LineChart, mut setter: Typesetter) -> Scene {
    let heatmap = chart.as_heatmap();
    let columns = chart.columns.len();
    let steps = StepScale::new(chart);
    let labels = token_labels(&heatmap, &mut setter);
    let widest_label = widest(labels.iter().map(|label| label.width));
    let mut grid = Grid {
        x: 0.0,
        y: 0.0,
        cell_width: match steps {
            Some(_) => SCALE_WIDTH / columns as f32,
            None => cell_width(columns, widest_label, 1.0),
        },
        cell_height: FIELD_HEIGHT,
        rows: 1,
        columns,
        gap: 0.0,
    };
    let scale = Scale::new(chart, &mut setter);
    let mut tokens = TokenPlan::new(&heatmap, labels, &grid, &mut setter);
    if steps.is_some() {
        // A scale has ticks in the place of the labels.
        (tokens.shown, tokens.numbered, tokens.rise, tokens.size) = (vec![], vec![], 0.0, TOKEN_SIZE);
    }
    let axis_label = visible_line(&chart.value_label);
    let axis_label = setter.wrap(&axis_label, AXIS_SIZE, Weight::Regular, FIELD_HEIGHT);
    let label_width = axis_label.len() as f32 * AXIS_SIZE * LINE_HEIGHT;
    let left = MARGIN + label_width + SMALL_GAP + scale.width + BAR_TICK + 2.0;
    let body_left = (MARGIN + tokens.left_reach(&grid) - left).max(0.0);
    grid.x = (left + body_left).ceil();
    let key = Key::of_lines(chart, &mut setter);
    let right = (grid.x + grid.width() + tokens.right_reach(&grid)).max(grid.x + grid.width() + key.width());
    let axis = visible_line(&chart.column_axis);
    let axis_width = setter.width(&axis, AXIS_SIZE, Weight::Regular);
    let content = right.max(grid.x + (grid.width() + axis_width) / 2.0) + MARGIN;
    let width = content.max(LEAST_WIDTH).ceil();
    let shift = ((width - content) / 2.0).floor();
    grid.x += shift;

    let mut drawing = Drawing { setter, margin: MARGIN, scene: Scene { width, ..Scene::default() } };
    grid.y = drawing.heading(&chart.title, &chart.subtitle, width);
    if heatmap.has_highlights() {
        grid.y += MARKER_HEIGHT + 3.0;
    }
    let x_of = |column: usize| match &steps {
        Some(steps) => steps.x(chart.scale[column], &grid),
        None => grid.column_center(column),
    };
    drawing.field(chart, &grid, &scale, &x_of);
    if let Some(steps) = &steps {
        drawing.steps(steps, &grid);
    }
    drawing.series(chart, &grid, scale.range, &x_of);
    let mut x = MARGIN + body_left + shift;
    for line in axis_label {
        let place = [x + AXIS_SIZE * ASCENT, grid.y + FIELD_HEIGHT / 2.0];
        drawing.upright_text(line, place, SOFT_INK);
        x += AXIS_SIZE * LINE_HEIGHT;
    }
    let bottom = drawing.columns(&heatmap, &tokens, &grid);
    let bottom = bottom.max(drawing.key(&key, [grid.x + grid.width(), grid.y]));
    let mut legend = chart.legend.clone();
    if heatmap.is_clipped() {
        legend.insert(0, "Values beyond the scale lie on its edge.".to_owned());
    }
    // Without values: a point that has none is a gap in its line, not a hatched cell.
    let notes = Heatmap { values: Vec::new(), rows: Vec::new(), legend, ..heatmap };
    drawing.scene.height = (drawing.legend(&notes, bottom) + MARGIN).ceil();
    drawing.scene
}

/// The colour of the series at `index`: ten that can be told apart, or, of more, a place between dark
/// and light by their order.
pub fn series_color(index: usize, count: usize) -> Rgb {
    match count {
        0..=10 => colorous::TABLEAU10[index % 10].as_array(),
        _ => ColorMap::Viridis.color(0.92 * index as f32 / (count - 1) as f32),
    }
}

/// The scale of values.
struct Scale {
    range: ValueRange,
    /// Where each tick stands, from the bottom (0) to the top (1), and its number.
    ticks: Vec<(f32, String)>,
    width: f32,
}

impl Scale {
    fn new(chart: &LineChart, setter: &mut Typesetter) -> Self {
        // Unlike colours, lines need not be symmetric about a centre; but it has to be in sight.
        let mut heatmap = Heatmap { center: None, ..chart.as_heatmap() };
        if let Some(center) = chart.center {
            heatmap.rows.push(String::new());
            heatmap.values.extend(std::iter::repeat_n(center, heatmap.columns.len()));
        }
        let data = heatmap.range();
        // Some air above and below, unless the ends were given.
        let air = 0.04 * (data.high - data.low);
        let range = ValueRange {
            low: chart.vmin.map_or(data.low - air, |_| data.low),
            high: chart.vmax.map_or(data.high + air, |_| data.high),
            center: None,
        };
        let (ticks, step) = round_ticks(range.low.into(), range.high.into(), 7);
        let style = NumberStyle::for_step(step);
        let ticks: Vec<(f32, String)> =
            ticks.into_iter().map(|tick| (range.fraction(tick as f32), style.typeset(tick))).collect();
        let widths = ticks.iter();
        let widths = widths.map(|(_, text)| setter.width(text, TICK_SIZE, Weight::Regular));
        let width = widest(widths);
        Self { range, ticks, width }
    }
}

/// The scale below the field, if points stand on one.
struct StepScale {
    low: f32,
    high: f32,
    /// Each tick, and its number.
    ticks: Vec<(f32, String)>,
}

impl StepScale {
    fn new(chart: &LineChart) -> Option<Self> {
        let (low, high) = (*chart.scale.first()?, *chart.scale.last()?);
        if low >= high || chart.scale.len() != chart.columns.len() {
            return None;
        }
        let (ticks, step) = round_ticks(low.into(), high.into(), MOST_TICKS);
        let style = NumberStyle::for_step(step);
        let ticks = ticks.into_iter().map(|tick| (tick as f32, style.typeset(tick))).collect();
        Some(Self { low, high, ticks })
    }

    /// The first and the last point stand a little inside the frame.
    fn x(&self, place: f32, grid: &Grid) -> f32 {
        let air = 0.02 * grid.width();
        grid.x + air + (place - self.low) / (self.high - self.low) * (grid.width() - 2.0 * air)
    }
}

/// Which line, or which group of points, is which.
pub(super) struct Key {
    title: String,
    names: Vec<(String, Rgb)>,
    size: f32,
    widest: f32,
    /// Beside each name; without it, a piece of line.
    dot: Option<f32>,
}

impl Key {
    fn of_lines(chart: &LineChart, setter: &mut Typesetter) -> Self {
        let names: Vec<&str> = chart.series.iter().map(|series| &*series.name).collect();
        Self::new(&chart.series_axis, &names, FIELD_HEIGHT, setter)
    }

    /// A key beside a field of some height; nothing if there is no name to tell.
    pub(super) fn new(title: &str, names: &[&str], height: f32, setter: &mut Typesetter) -> Self {
        let count = names.len();
        if count < 2 && names.iter().all(|name| name.is_empty()) {
            return Self { title: String::new(), names: Vec::new(), size: TICK_SIZE, widest: 0.0, dot: None };
        }
        let room = height / (count + 1) as f32;
        let size = (room / LINE_HEIGHT).clamp(LEAST_TICK_SIZE, TICK_SIZE);
        let mut shown = |text: &str| setter.shorten(&visible_line(text), size, Weight::Regular, LONGEST_NAME);
        let title = shown(title);
        let named = |(index, name): (usize, &&str)| (shown(name), series_color(index, count));
        let names: Vec<(String, Rgb)> = names.iter().enumerate().map(named).collect();
        let texts = names.iter().map(|(name, _)| name).chain([&title]);
        let widths = texts.map(|text| setter.width(text, size, Weight::Regular));
        let widest = widest(widths);
        Self { title, names, size, widest, dot: None }
    }

    /// The same key with a dot of a radius beside each name.
    pub(super) fn with_dots(self, radius: f32) -> Self {
        Self { dot: Some(radius), ..self }
    }

    pub(super) fn width(&self) -> f32 {
        match self.names.is_empty() {
            true => 0.0,
            false => BAR_GAP + KEY_LINE + SMALL_GAP + self.widest,
        }
    }
}

impl Drawing {
    /// The frame, the ticks with their numbers, and the marked points.
    fn field(&mut self, chart: &LineChart, grid: &Grid, scale: &Scale, x_of: &dyn Fn(usize) -> f32) {
        let (left, right) = (grid.x, grid.x + grid.width());
        let mut line = |from: [f32; 2], to: [f32; 2], width: f32, color: Rgb| {
            self.scene.items.push(Item::Line(Line { from, to, width, color }));
        };
        let height_of = |fraction: f32| grid.y + (1.0 - fraction) * FIELD_HEIGHT;
        for (fraction, _) in &scale.ticks {
            let y = height_of(*fraction);
            line([left, y], [right, y], 0.7, GRID_LINE);
            line([left - BAR_TICK, y], [left, y], 1.0, FRAME);
        }
        if let Some(center) = chart.center {
            let fraction = scale.range.fraction(center);
            let is_inside = (scale.range.low..=scale.range.high).contains(&center);
            if is_inside {
                let y = height_of(fraction);
                line([left, y], [right, y], CENTER_WIDTH, SOFT_INK);
            }
        }
        let marked = chart.highlight_columns.iter();
        let marked: Vec<usize> = marked.copied().filter(|&column| column < grid.columns).collect();
        for &column in &marked {
            let x = x_of(column);
            line([x, grid.y], [x, grid.y + FIELD_HEIGHT], 0.8, ACCENT);
        }
        for column in marked {
            self.marker(x_of(column), grid.y - 3.0, grid.cell_width);
        }
        for (fraction, text) in &scale.ticks {
            let y = height_of(*fraction) + TICK_SIZE * CAP_HEIGHT / 2.0;
            let place = [left - BAR_TICK - 2.0, y];
            self.text(text.clone(), place, TICK_SIZE, Anchor::End, INK, Weight::Regular);
        }
        self.frame(&Rect {
            x: left - 0.5,
            y: grid.y - 0.5,
            w: grid.width() + 1.0,
            h: FIELD_HEIGHT + 1.0,
            fill: FRAME,
        });
    }

    /// The lines, each from point to point; a value beyond the scale is drawn at its end.
    fn series(&mut self, chart: &LineChart, grid: &Grid, range: ValueRange, x_of: &dyn Fn(usize) -> f32) {
        let dots = grid.cell_width >= LEAST_DOT_DISTANCE;
        for (index, series) in chart.series.iter().enumerate() {
            let color = series_color(index, chart.series.len());
            let point = |column: usize| {
                let fraction = range.fraction(series.values[column]);
                let y = grid.y + (1.0 - fraction) * FIELD_HEIGHT;
                fraction.is_finite().then(|| [x_of(column), y])
            };
            for column in 0..grid.columns {
                let Some(here) = point(column) else { continue };
                let next = (column + 1 < grid.columns).then(|| point(column + 1)).flatten();
                let before = column.checked_sub(1).and_then(point);
                if let Some(to) = next {
                    self.scene.items.push(Item::Line(Line { from: here, to, width: LINE_WIDTH, color }));
                }
                // A point between two gaps would not be seen without its square.
                if dots || (next.is_none() && before.is_none()) {
                    self.scene.items.push(Item::Rect(Rect {
                        x: here[0] - DOT,
                        y: here[1] - DOT,
                        w: 2.0 * DOT,
                        h: 2.0 * DOT,
                        fill: color,
                    }));
                }
            }
        }
    }

    /// The ticks of a scale below the field, with their numbers.
    fn steps(&mut self, steps: &StepScale, grid: &Grid) {
        let bottom = grid.y + FIELD_HEIGHT;
        for (tick, text) in &steps.ticks {
            let x = steps.x(*tick, grid);
            for (from, to, width, color) in
                [(grid.y, bottom, 0.7, GRID_LINE), (bottom, bottom + BAR_TICK, 1.0, FRAME)]
            {
                self.scene.items.push(Item::Line(Line { from: [x, from], to: [x, to], width, color }));
            }
            let place = [x, bottom + BAR_TICK + 2.0 + TICK_SIZE * ASCENT];
            self.text(text.clone(), place, TICK_SIZE, Anchor::Middle, INK, Weight::Regular);
        }
    }

    /// A key to the right of a field whose upper right corner is given.
    pub(super) fn key(&mut self, key: &Key, [right, mut y]: [f32; 2]) -> f32 {
        let x = right + BAR_GAP;
        let size = key.size;
        if !key.title.is_empty() {
            let place = [x, y + size * ASCENT];
            let title = key.title.clone();
            self.text(title, place, size, Anchor::Start, SOFT_INK, Weight::Regular);
            y += size * LINE_HEIGHT;
        }
        for (name, color) in &key.names {
            let baseline = y + size * ASCENT;
            let middle = baseline - size * CAP_HEIGHT / 2.0;
            let (from, to) = ([x, middle], [x + KEY_LINE, middle]);
            self.scene.items.push(match key.dot {
                Some(radius) => {
                    Item::Dots(Dots { centers: vec![[x + KEY_LINE / 2.0, middle]], radius, fill: *color })
                }
                None => Item::Line(Line { from, to, width: LINE_WIDTH, color: *color }),
            });
            let place = [x + KEY_LINE + SMALL_GAP, baseline];
            self.text(name.clone(), place, size, Anchor::Start, INK, Weight::Regular);
            y += size * LINE_HEIGHT;
        }
        y
    }
}

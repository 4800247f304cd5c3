//! The ways of edges between boxes.
//!
//! An edge runs straight from row to row where it can. In each row that it passes it has to stay clear of the
//! boxes, and, as long as that does not lead it far astray, of the edges that were there before it.

/// The free space between an edge and a box, and between two edges.
const BOX_CLEARANCE: f32 = 4.5;
const EDGE_CLEARANCE: f32 = 1.6;
/// How far an edge goes out of the way of others.
const FARTHEST: f32 = 42.0;
/// The grain of the search for a free place.
const STEP: f32 = 1.5;
const MOST_STEPS: usize = 2000;

/// A row with boxes.
pub struct Row {
    /// The y of its upper and its lower end.
    pub top: f32,
    pub bottom: f32,
    /// The left and the right end of each box.
    pub boxes: Vec<[f32; 2]>,
    /// The edges that pass it: where, and half their widths with the space beside them.
    pub lanes: Vec<[f32; 2]>,
}

impl Row {
    fn middle(&self) -> f32 {
        (self.top + self.bottom) / 2.0
    }

    /// How far `x` is from the nearest box; negative inside one.
    fn clearance(&self, x: f32) -> f32 {
        let distances = self.boxes.iter().map(|[left, right]| (left - x).max(x - right));
        distances.fold(f32::INFINITY, f32::min)
    }

    /// How much an edge at `x` overlaps others.
    fn crowd(&self, x: f32, half: f32) -> f32 {
        self.lanes.iter().map(|[lane, other]| (half + other - (lane - x).abs()).max(0.0)).sum()
    }

    /// The place nearest to `wanted` where an edge can pass, and takes it.
    fn take(&mut self, wanted: f32, width: f32) -> f32 {
        let margin = BOX_CLEARANCE + width / 2.0;
        let half = (width + EDGE_CLEARANCE) / 2.0;
        // Outwards on both sides; somewhere beyond the outermost boxes there is room.
        let outwards = (0..MOST_STEPS).flat_map(|step| {
            let by = step as f32 * STEP;
            [wanted + by, wanted - by]
        });
        let clear: Vec<f32> = outwards.filter(|&x| self.clearance(x) >= margin).collect();
        let first = clear.first().copied().unwrap_or(wanted);
        let mut best = (first, f32::INFINITY);
        for x in clear.into_iter().take_while(|x| (x - first).abs() <= FARTHEST) {
            let crowd = self.crowd(x, half);
            if crowd < best.1 {
                best = (x, crowd);
            }
            if crowd == 0.0 {
                break;
            }
        }
        let x = best.0;
        self.lanes.push([x, half]);
        x
    }
}

/// The way of an edge between two points, past the rows between them in the order in which it meets them.
pub fn route<'a>(
    from: [f32; 2],
    to: [f32; 2],
    rows: impl Iterator<Item = &'a mut Row>,
    width: f32,
) -> Vec<[f32; 2]> {
    // Points, and for each whether the edge passes it upright.
    let mut points = vec![(from, true)];
    for row in rows {
        let y = row.middle();
        let [x, before] = points[points.len() - 1].0;
        let share = if to[1] == before { 0.0 } else { (y - before) / (to[1] - before) };
        let wanted = x + (to[0] - x) * share.clamp(0.0, 1.0);
        let place = row.take(wanted, width);
        let slope = |[ax, ay]: [f32; 2], [bx, by]: [f32; 2]| ((bx - ax) / (by - ay).abs().max(1.0)).abs();
        let steepest = slope([x, before], [place, y]).max(slope([place, y], to));
        let half = (row.bottom - row.top) / 2.0;
        if row.clearance(place) < steepest * half + BOX_CLEARANCE + width / 2.0 {
            // Straight past the boxes that are near.
            let ends = [row.top, row.bottom];
            let ends = if from[1] > to[1] { [ends[1], ends[0]] } else { ends };
            points.extend(ends.map(|y| ([place, y], true)));
        } else {
            points.push(([place, y], false));
        }
    }
    points.push((to, true));
    smooth(&points)
}

/// A chain of Bézier curves through points: x as a function of y that has no more turns than the points (the
/// monotone cubic of Fritsch and Butland), and none where the edge has to be upright.
fn smooth(points: &[([f32; 2], bool)]) -> Vec<[f32; 2]> {
    let slope = |a: [f32; 2], b: [f32; 2]| if a[1] == b[1] { 0.0 } else { (b[0] - a[0]) / (b[1] - a[1]) };
    let mut slopes = vec![0.0; points.len()];
    for (at, triple) in points.windows(3).enumerate() {
        let [(a, _), (b, upright), (c, _)] = [triple[0], triple[1], triple[2]];
        let (before, after) = (slope(a, b), slope(b, c));
        if !upright && before * after > 0.0 {
            slopes[at + 1] = 2.0 * before * after / (before + after);
        }
    }
    let mut chain = vec![points[0].0];
    for (at, pair) in points.windows(2).enumerate() {
        let [a, b] = [pair[0].0, pair[1].0];
        let height = b[1] - a[1];
        // A longer handle at an upright end makes a rounder turn.
        let reach = |upright: bool| if upright { height * 0.42 } else { height / 3.0 };
        let (first, last) = (reach(pair[0].1), reach(pair[1].1));
        chain.push([a[0] + slopes[at] * first, a[1] + first]);
        chain.push([b[0] - slopes[at + 1] * last, b[1] - last]);
        chain.push(b);
    }
    chain
}

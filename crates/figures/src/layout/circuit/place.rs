//! Where the nodes of a circuit stand in their rows, so that edges are short and cross little.
//!
//! Each row is sorted by the mean place of the nodes that its nodes are connected with (the barycentre
//! heuristic of Sugiyama, Tagawa and Toda, 1981), in turn upwards and downwards, and its nodes are put as
//! close to those means as their widths allow. The arrangement that costs least is improved by exchanging
//! neighbours and moving rows.

/// How often all rows are sorted.
const SWEEPS: usize = 24;
/// How often all exchanges are tried, and how many pairs of links are compared at most meanwhile.
const ROUNDS: usize = 3;
const MOST_PAIRS: usize = 15_000_000;
/// How far a row is moved at a time.
const MOVES: [f32; 6] = [-120.0, -70.0, -35.0, 35.0, 70.0, 120.0];
/// What a link that runs behind a box costs, where a crossing costs 1, and a link a length of its own.
const BEHIND_A_BOX: f32 = 2.0;
const LENGTH: f32 = 250.0;

/// What has to be placed.
pub struct Graph {
    /// The nodes of each row, the lowest row first.
    pub rows: Vec<Vec<usize>>,
    /// The width of each node.
    pub widths: Vec<f32>,
    /// Pairs of nodes, the lower first, with how much they belong together.
    pub links: Vec<(usize, usize, f32)>,
    /// The least distance between two boxes of a row.
    pub gap: f32,
}

/// A node that another is connected with.
struct Neighbour {
    node: usize,
    is_below: bool,
    weight: f32,
}

/// The order of the nodes in each row and the middle of each node; 0 is the middle of the picture.
#[derive(Clone)]
pub struct Places {
    pub rows: Vec<Vec<usize>>,
    pub x: Vec<f32>,
}

/// Finds a place for every node.
pub fn place(graph: &Graph) -> Places {
    let mut places = Places { rows: graph.rows.clone(), x: vec![0.0; graph.widths.len()] };
    for row in &graph.rows {
        let wanted: Vec<f32> = row.iter().map(|_| 0.0).collect();
        graph.spread(row, &wanted, &mut places.x);
    }
    let rank = graph.ranks();
    let neighbours = graph.neighbours();
    let mut best = (graph.cost(&places, &rank), places.clone());
    for sweep in 0..SWEEPS {
        for at in 0..graph.rows.len() {
            let row = if sweep % 2 == 0 { at } else { graph.rows.len() - 1 - at };
            let sides = if sweep + 4 >= SWEEPS { [true, true] } else { [sweep % 2 == 0, sweep % 2 == 1] };
            graph.sort_row(row, sides, &neighbours, &mut places);
        }
        let cost = graph.cost(&places, &rank);
        if cost < best.0 {
            best = (cost, places.clone());
        }
    }
    graph.improve(&mut best, &rank);
    best.1
}

impl Graph {
    /// The row that each node is in.
    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![0; self.widths.len()];
        for (rank, row) in self.rows.iter().enumerate() {
            row.iter().for_each(|&node| ranks[node] = rank);
        }
        ranks
    }

    /// The nodes that each node is connected with.
    fn neighbours(&self) -> Vec<Vec<Neighbour>> {
        let mut neighbours: Vec<Vec<Neighbour>> = self.widths.iter().map(|_| Vec::new()).collect();
        for &(from, to, weight) in &self.links {
            neighbours[to].push(Neighbour { node: from, is_below: true, weight });
            neighbours[from].push(Neighbour { node: to, is_below: false, weight });
        }
        neighbours
    }

    /// Sorts a row by the places of the nodes that it is connected with, below or above.
    fn sort_row(
        &self,
        row: usize,
        [below, above]: [bool; 2],
        neighbours: &[Vec<Neighbour>],
        places: &mut Places,
    ) {
        let mean = |node: usize| {
            let mut sum = [0.0, 0.0];
            for neighbour in &neighbours[node] {
                if if neighbour.is_below { below } else { above } {
                    let weight = neighbour.weight;
                    sum = [sum[0] + weight * places.x[neighbour.node], sum[1] + weight];
                }
            }
            if sum[1] > 0.0 { sum[0] / sum[1] } else { places.x[node] }
        };
        let mut nodes: Vec<(f32, usize)> = places.rows[row].iter().map(|&node| (mean(node), node)).collect();
        nodes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (wanted, order): (Vec<f32>, Vec<usize>) = nodes.into_iter().unzip();
        self.spread(&order, &wanted, &mut places.x);
        places.rows[row] = order;
    }

    /// Puts the nodes of a row, in this order, as close to where they are wanted as their widths allow: by the
    /// least sum of squares (isotonic regression, by pooling adjacent violators).
    fn spread(&self, row: &[usize], wanted: &[f32], x: &mut [f32]) {
        // How far right of the first node each one stands at least.
        let mut offsets = vec![0.0];
        for pair in row.windows(2) {
            let apart = (self.widths[pair[0]] + self.widths[pair[1]]) / 2.0 + self.gap;
            offsets.push(offsets[offsets.len() - 1] + apart);
        }
        let mut pools: Vec<(f32, usize)> = Vec::new();
        for (wanted, offset) in wanted.iter().zip(&offsets) {
            let (mut sum, mut count) = (wanted - offset, 1);
            while let Some(&(before, of)) = pools.last() {
                if before / (of as f32) < sum / count as f32 {
                    break;
                }
                (sum, count) = (sum + before, count + of);
                pools.pop();
            }
            pools.push((sum, count));
        }
        let pooled =
            pools.into_iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / count as f32, count));
        for ((&node, place), offset) in row.iter().zip(pooled).zip(offsets) {
            x[node] = place + offset;
        }
    }

    /// How bad an arrangement is: crossings of links, links behind boxes, and lengths.
    fn cost(&self, places: &Places, rank: &[usize]) -> f32 {
        let lines: Vec<Segment> = self
            .links
            .iter()
            .map(|&(from, to, _)| Segment { rows: [rank[from], rank[to]], x: [places.x[from], places.x[to]] })
            .collect();
        let mut cost = 0.0;
        for (index, line) in lines.iter().enumerate() {
            cost += (line.x[1] - line.x[0]).abs() / LENGTH;
            cost += lines[index + 1..].iter().filter(|other| line.crosses(other)).count() as f32;
            for (row, nodes) in places.rows.iter().enumerate().take(line.rows[1]).skip(line.rows[0] + 1) {
                let x = line.at(row);
                let is_behind = |&&node: &&usize| (places.x[node] - x).abs() < self.widths[node] / 2.0 + 4.0;
                cost += BEHIND_A_BOX * nodes.iter().filter(is_behind).count() as f32;
            }
        }
        cost
    }

    /// Exchanges neighbours and moves rows as long as it helps.
    fn improve(&self, best: &mut (f32, Places), rank: &[usize]) {
        let mut left = MOST_PAIRS / self.links.len().pow(2).max(1);
        let mut attempt = |best: &mut (f32, Places), places: Places| {
            if left == 0 {
                return false;
            }
            left -= 1;
            let cost = self.cost(&places, rank);
            let better = cost < best.0 - 1e-3;
            if better {
                *best = (cost, places);
            }
            better
        };
        for _ in 0..ROUNDS {
            let mut better = false;
            for row in 0..self.rows.len() {
                for at in 1..self.rows[row].len() {
                    let mut places = best.1.clone();
                    let wanted: Vec<f32> = places.rows[row].iter().map(|&node| places.x[node]).collect();
                    places.rows[row].swap(at - 1, at);
                    let order = places.rows[row].clone();
                    self.spread(&order, &wanted, &mut places.x);
                    better |= attempt(best, places);
                }
                for by in MOVES {
                    let mut places = best.1.clone();
                    places.rows[row].iter().for_each(|&node| places.x[node] += by);
                    better |= attempt(best, places);
                }
            }
            if !better {
                break;
            }
        }
    }
}

/// A link as a straight line between two rows.
struct Segment {
    rows: [usize; 2],
    x: [f32; 2],
}

impl Segment {
    /// Where it is at the height of a row between its ends.
    fn at(&self, row: usize) -> f32 {
        let [low, high] = self.rows.map(|row| row as f32);
        let share = if high > low { (row as f32 - low) / (high - low) } else { 0.0 };
        self.x[0] + (self.x[1] - self.x[0]) * share
    }

    /// Whether two lines change sides between the rows that both are in.
    fn crosses(&self, other: &Self) -> bool {
        let low = self.rows[0].max(other.rows[0]);
        let high = self.rows[1].min(other.rows[1]);
        if low >= high {
            return false;
        }
        let below = self.at(low) - other.at(low);
        let above = self.at(high) - other.at(high);
        below * above < 0.0
    }
}

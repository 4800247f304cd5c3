//! Several heatmaps on one sheet.

use super::*;
use crate::figure::Sheet;
use crate::scene::Cells;

/// Between two panels.
const PANEL_GAP: f32 = 14.0;
/// The longer side of the cells of a tiny panel.
const TILE: f32 = 58.0;
/// Between two tiny panels.
const TILE_GAP: f32 = 9.0;
const TILE_TITLE_SIZE: f32 = 8.5;
/// The maximum height of the scale that all panels share.
const BAR_HEIGHT: f32 = 320.0;

/// Arranges the panels row after row: those of a row have their tops, those of a column their left
/// edges in line.
pub(super) fn layout(sheet: &Sheet, setter: Typesetter) -> Scene {
    let mut drawing = Drawing { setter, margin: MARGIN, scene: Scene::default() };
    let panels = sheet.drawn_panels();
    let scale = sheet.scale();
    let numbers = scale.as_ref().filter(|_| !sheet.compact).map(|all| Numbers::of(all, &mut drawing.setter));
    let scenes: Vec<Scene> = panels
        .iter()
        .map(|panel| match sheet.compact {
            true => tile(panel, &mut drawing.setter),
            false => drawing.panel(panel, numbers),
        })
        .collect();
    let per_row = sheet.panels_per_row();
    let gap = if sheet.compact { TILE_GAP } else { PANEL_GAP };
    let rows: Vec<&[Scene]> = scenes.chunks(per_row).collect();
    let column_width = |column: usize| {
        let scenes = rows.iter().filter_map(|row| row.get(column));
        widest(scenes.map(|scene| scene.width))
    };
    let widths: Vec<f32> = (0..per_row).map(column_width).collect();
    let heights = rows.iter().map(|row| widest(row.iter().map(|scene| scene.height)));
    let heights: Vec<f32> = heights.collect();
    let extent = |lengths: &[f32]| lengths.iter().sum::<f32>() + gap * lengths.len().saturating_sub(1) as f32;
    let (inner_width, inner_height) = (extent(&widths), extent(&heights));

    let bar = scale.as_ref().map(|scale| {
        let height = inner_height.clamp(LEAST_BAR_HEIGHT, BAR_HEIGHT);
        BarPlan::new(scale, height, &mut drawing.setter)
    });
    let bar_width = bar.as_ref().map_or(0.0, |bar| BAR_GAP + bar.width());
    let content = inner_width + bar_width + 2.0 * MARGIN;
    drawing.scene.width = content.max(LEAST_WIDTH).ceil();
    let left = MARGIN + ((drawing.scene.width - content) / 2.0).floor();
    let top = drawing.heading(&sheet.title, &sheet.subtitle, drawing.scene.width);

    let mut y = top;
    for (row, height) in rows.iter().zip(&heights) {
        let mut x = left;
        for (scene, width) in row.iter().zip(&widths) {
            let moved = scene.items.iter().map(|item| item.moved(x, y));
            drawing.scene.items.extend(moved);
            x += width + gap;
        }
        y += height + gap;
    }
    let mut bottom = top + inner_height;
    if let Some(bar) = &bar {
        let x = left + inner_width + BAR_GAP;
        bottom = bottom.max(drawing.color_bar(bar, x, top, 0.0));
    }
    // The notes that hold for all panels.
    let notes = Heatmap { legend: sheet.legend.clone(), ..sheet.notes() };
    drawing.scene.height = (drawing.legend(&notes, bottom) + MARGIN).ceil();
    drawing.scene
}

impl Drawing {
    /// A panel with its words, as a scene of its own; without a bar if all share one scale.
    fn panel(&mut self, panel: &Heatmap, numbers: Option<Numbers>) -> Scene {
        let setting = Setting {
            margin: 4.0,
            least_width: 0.0,
            size: 0.62,
            bar: numbers.is_none(),
            numbers,
            least_bar_height: 120.0,
        };
        let setter = std::mem::take(&mut self.setter);
        let drawing = layout_heatmap(panel, setter, &setting);
        self.setter = drawing.setter;
        drawing.scene
    }
}

/// A tiny panel: its title and its cells.
fn tile(panel: &Heatmap, setter: &mut Typesetter) -> Scene {
    panel.check_shape();
    let (rows, columns) = (panel.rows.len(), panel.columns.len());
    let side = TILE / rows.max(columns).max(1) as f32;
    let (w, h) = (side * columns as f32, side * rows as f32);
    let title = visible_line(&panel.title);
    let title = setter.shorten(&title, TILE_TITLE_SIZE, Weight::Regular, TILE + TILE_GAP / 2.0);
    let range = panel.range();
    let colors = panel.values.iter();
    let colors = colors.map(|&value| cell_color(panel.color_map, range, value));
    let y = TILE_TITLE_SIZE * LINE_HEIGHT + 2.0;
    let mut drawing = Drawing {
        setter: Typesetter::default(),
        margin: 0.0,
        scene: Scene { width: TILE, height: y + h, items: Vec::new() },
    };
    drawing.text(
        title,
        [0.0, TILE_TITLE_SIZE * ASCENT],
        TILE_TITLE_SIZE,
        Anchor::Start,
        SOFT_INK,
        Weight::Regular,
    );
    if !panel.values.is_empty() {
        drawing.scene.items.push(Item::Cells(Cells { x: 0.0, y, w, h, columns, colors: colors.collect() }));
    }
    drawing.frame(&Rect { x: -0.5, y: y - 0.5, w: w + 1.0, h: h + 1.0, fill: FRAME });
    drawing.scene
}

impl Sheet {
    /// What has to be explained under tiny panels, which explain nothing themselves.
    fn notes(&self) -> Heatmap {
        match self.scale() {
            Some(scale) if self.compact => scale,
            _ => Heatmap::default(),
        }
    }
}

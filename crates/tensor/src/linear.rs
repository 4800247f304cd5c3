//! The linear layer for many rows: Y = X W + b, as fast as the machine multiplies.
//!
//! On a processor with AVX-512 this is a kernel of our own; elsewhere it is [`crate::matmul()`] and an
//! addition, which is also what the tests hold the kernel to. All the unsafe code of the kernel is in
//! this file.
//!
//! The loops, from the outside in (the scheme is that of Goto & van de Geijn, *Anatomy of
//! High-Performance Matrix Multiplication*, 2008):
//!
//! 1. X is packed once: tiles of [`TILE_ROWS`] rows, column by column, so that the innermost loop
//!    reads it in a line.
//! 2. Threads take [`CHUNK_COLUMNS`] columns of W at a time, so that no thread packs what another
//!    has packed.
//! 3. K is cut into blocks of [`BLOCK_K`]: a block of the chunk's W is packed into panels of
//!    [`PANEL_COLUMNS`] columns, small enough for the second-level cache.
//!    While they are multiplied, the next block is fetched.
//! 4. [`TILES_TOGETHER`] tiles, which fit into the second-level cache too, meet the panels.
//! 5. Every panel (which stays in the first-level cache) meets each of these tiles.
//! 6. A tile of Y stays in 28 vector registers while k runs through the block.
//!
//! A short prompt has [`FEW_ROWS`]. They need no panels, in which nothing would be used twice: the lanes of one
//! vector are the rows of X, and each number of W, read where it lies, meets all of them.
//!
//! Every number of Y is the sum, over the blocks in order, of sums over k in order, whatever rows
//! and columns are computed beside it: it has the same bits in every batch and on any number of
//! threads.

#![allow(unsafe_code, reason = "the AVX-512 kernel")]

use std::ops::RangeInclusive;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::{Tensor, View, dot, matmul, matmul_add_into};

/// Y = X W + b for `(M, K)` rows, a `(K, N)` weight and an `(N)` bias: `(M, N)`.
///
/// It is [`crate::matmul()`] and an addition, but for rounding; many rows are several times faster.
///
/// # Panics
/// If the shapes do not fit each other.
#[track_caller]
pub fn linear<'a, 'b>(x: impl Into<View<'a>>, weight: impl Into<View<'b>>, bias: &[f32]) -> Tensor {
    let (x, weight) = (x.into(), weight.into());
    let ([m, k], [n_in, n]) = (x.shape(), weight.shape());
    assert!(
        k == n_in && n == bias.len(),
        "linear layer of {:?} with a weight of {:?} and a bias of [{}]",
        x.shape(),
        weight.shape(),
        bias.len()
    );
    #[cfg(target_arch = "x86_64")]
    if ![m, k, n].contains(&0)
        && x.col_stride == 1
        && (weight.col_stride == 1 || weight.row_stride == 1)
        && is_x86_feature_detected!("avx512f")
    {
        return avx512::linear(x, weight, bias);
    }
    let mut y = matmul(x, weight);
    for row in y.data_mut().chunks_exact_mut(n.max(1)) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
    debug_assert_eq!(y.shape(), [m, n]);
    y
}

/// The backward pass of [`linear`] with respect to X: dX = dY Wᵀ for `(M, N)` rows and a `(K, N)` weight,
/// `(M, K)`.
///
/// The rows of a large weight are read once for 32 rows of dY, in the order in which they lie; a small one
/// goes through [`linear`]. Either way a row has the same bits whatever is computed beside it.
///
/// # Panics
/// If the shapes do not fit each other.
#[track_caller]
pub fn linear_backward(dy: &Tensor, weight: &Tensor) -> Tensor {
    /// In shorter rows of W the additions at the end of a dot product would rule.
    const LONG_ROW: usize = 512;
    let ([m, n], [k, w_cols]) = (dy.dims(), weight.dims());
    assert!(
        n == w_cols,
        "a gradient of {:?} for a linear layer with a weight of [{k}, {w_cols}]",
        dy.shape()
    );
    if n < LONG_ROW {
        return linear(dy, weight.view().t(), &vec![0.0; k]);
    }
    let mut dx = Tensor::zeros(&[m, k]);
    for start in (0..m).step_by(ROWS_OF_DY) {
        let rows = start..m.min(start + ROWS_OF_DY);
        let (dy, dx) =
            (&dy.data()[rows.start * n..rows.end * n], &mut dx.data_mut()[start * k..rows.end * k]);
        let pieces = match rows.len() {
            ..=16 => times_transpose::<1>(dy, weight.data(), n),
            _ => times_transpose::<2>(dy, weight.data(), n),
        };
        for (piece, start) in pieces.iter().zip((0..k).step_by(ROWS_OF_W)) {
            let products = piece.chunks_exact(piece.len() / rows.len());
            for (dx, products) in dx.chunks_exact_mut(k).zip(products) {
                dx[start..start + products.len()].copy_from_slice(products);
            }
        }
    }
    dx
}

/// Rows of dY that meet a row of W while it is read.
const ROWS_OF_DY: usize = 32;
/// Rows of W that are one piece of work for a thread.
const ROWS_OF_W: usize = 48;

/// The products of at most 16 `P` rows of dY, `(M, n)`, with the rows of W, `(K, n)`: dY Wᵀ in pieces of
/// [`ROWS_OF_W`] columns, each `(M, columns)`.
fn times_transpose<const P: usize>(dy: &[f32], w: &[f32], n: usize) -> Vec<Vec<f32>> {
    let m = dy.len() / n;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        let packed = avx512::pack_lanes::<P>(dy.chunks_exact(n), n);
        let pieces = w.par_chunks(ROWS_OF_W * n).map(|w| {
            let mut piece = Vec::with_capacity(ROWS_OF_W);
            // SAFETY: the machine has AVX-512.
            unsafe { avx512::times_packed(w, &packed, &mut piece) };
            avx512::unpack_lanes(&piece, m)
        });
        return pieces.collect();
    }
    let pieces = w.par_chunks(ROWS_OF_W * n).map(|w| {
        let mut piece = vec![0.0; m * (w.len() / n)];
        dot_products(dy, w, n, &mut piece);
        piece
    });
    pieces.collect()
}

/// The same with dot products, for some rows of W: `(M, rows of W)`.
#[multiversion(targets = "simd")]
fn dot_products(dy: &[f32], w: &[f32], n: usize, out: &mut [f32]) {
    let width = w.len() / n;
    for (i, w) in w.chunks_exact(n).enumerate() {
        for (dy, out) in dy.chunks_exact(n).zip(out.chunks_exact_mut(width)) {
            out[i] = dot(w, dy);
        }
    }
}

/// The gradients of a linear layer's parameters, added to `dweight`, `(K, N)`, and `dbias`, `(N)`:
/// dW += Xᵀ dY and db += Σ dY over the rows, for X of `(M, K)` and dY of `(M, N)`.
///
/// # Panics
/// If the shapes do not fit each other.
#[track_caller]
pub fn linear_backward_parameters(dy: &Tensor, x: &Tensor, dweight: &mut Tensor, dbias: &mut Tensor) {
    matmul_add_into(x.view().t(), dy, dweight.view_mut());
    dy.add_rows_to(dbias);
}

/// So many rows of X are the lanes of one vector. (Of fewer, tiles lose nothing.)
#[cfg(target_arch = "x86_64")]
const FEW_ROWS: RangeInclusive<usize> = 8..=16;
/// Rows of Y that are computed together; 14 rows of two vectors are 28 of the 32 registers.
#[cfg(target_arch = "x86_64")]
const TILE_ROWS: usize = 14;
/// Columns of Y that are computed together: two vectors of 16.
#[cfg(target_arch = "x86_64")]
const PANEL_COLUMNS: usize = 32;
/// A panel of this many rows is 32 KiB.
#[cfg(target_arch = "x86_64")]
const BLOCK_K: usize = 256;
/// Tiles whose part of a block is 170 KiB.
#[cfg(target_arch = "x86_64")]
const TILES_TOGETHER: usize = 12;
/// Rows of a panel between one look ahead and the next.
#[cfg(target_arch = "x86_64")]
const STRETCH: usize = 32;
/// Columns that a thread takes at a time, at the most: a block of them is 256 KiB, and there is room for the
/// next one, which is fetched meanwhile.
#[cfg(target_arch = "x86_64")]
const CHUNK_COLUMNS: usize = 256;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;
    use std::cell::{Cell, RefCell};
    use std::hint::black_box;
    use std::ops::Range;

    use rayon::prelude::*;

    use super::{BLOCK_K, CHUNK_COLUMNS, FEW_ROWS, PANEL_COLUMNS, STRETCH, TILE_ROWS, TILES_TOGETHER};
    use crate::matmul::Output;
    use crate::{Tensor, View};

    /// A row of a panel. It begins where a cache line does: a vector that lies across two lines is loaded in
    /// two steps, which costs a twentieth of the time.
    #[derive(Clone, Copy)]
    #[repr(align(128))]
    struct PanelRow([f32; PANEL_COLUMNS]);

    /// A packed X of more numbers than this (32 MiB) is not kept.
    const KEPT: usize = 1 << 23;

    thread_local! {
        /// Where a thread packs X: memory that is new each time costs as much as the packing.
        static PACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
        /// Where a thread packs its block of W.
        static PANELS: RefCell<Vec<PanelRow>> = const { RefCell::new(Vec::new()) };
    }

    /// The shapes fit, no axis is empty, the rows of X and either the rows or the columns of the weight
    /// are contiguous, and the machine has AVX-512.
    pub fn linear(x: View<'_>, weight: View<'_>, bias: &[f32]) -> Tensor {
        let (m, n) = (x.rows, weight.cols);
        if FEW_ROWS.contains(&m) && n.is_multiple_of(COLUMNS_OF_FEW) && weight.col_stride == 1 {
            return linear_of_few_rows(x, weight, bias);
        }
        let mut packed = PACKED.take();
        pack_rows(x, &mut packed);
        let mut y = Vec::with_capacity(m * n);
        let output = Output { data: y.as_mut_ptr(), row_stride: n };
        let width = chunk_width(n, rayon::current_num_threads());
        // One chunk at a time: a thread that is ready takes any that another has not begun.
        let starts = (0..n).into_par_iter().step_by(width).with_max_len(1);
        starts.for_each(|start| {
            let columns = start..n.min(start + width);
            PANELS.with_borrow_mut(|buffer| {
                // SAFETY: `y` has `m` rows of `n` numbers and lives until all chunks are done, and no two
                // chunks share a column. The caller has made sure of AVX-512.
                unsafe { columns_of_product(&packed, weight, bias, columns, m, output, buffer) };
            });
        });
        if packed.len() <= KEPT {
            PACKED.set(packed);
        }
        // SAFETY: the chunks cover all columns, and of each they write all rows.
        unsafe { y.set_len(m * n) };
        Tensor::new(&[m, n], y)
    }

    /// Columns of W that meet the lanes together: as many sums in registers, and a cache line of W.
    const COLUMNS_OF_FEW: usize = 16;

    /// [`linear`] for [`FEW_ROWS`] rows of X and whole groups of columns of a weight whose rows are contiguous.
    fn linear_of_few_rows(x: View<'_>, weight: View<'_>, bias: &[f32]) -> Tensor {
        let (m, n) = (x.rows, weight.cols);
        let packed = pack_lanes::<1>((0..m).map(|row| &x.data[row * x.row_stride..][..x.cols]), x.cols);
        let packed = packed.as_flattened();
        let width = chunk_width(n, rayon::current_num_threads());
        let starts = (0..n).into_par_iter().step_by(width).with_max_len(1);
        let chunks = starts.map(|start| {
            let columns = start..n.min(start + width);
            // SAFETY: the machine has AVX-512.
            let lanes = unsafe { columns_of_few_rows(packed, weight, bias, columns) };
            unpack_lanes::<1>(lanes.as_chunks().0, m)
        });
        let chunks: Vec<Vec<f32>> = chunks.collect(); // (M, columns)
        let mut y = Vec::with_capacity(m * n);
        for row in 0..m {
            for chunk in &chunks {
                let width = chunk.len() / m;
                y.extend_from_slice(&chunk[row * width..(row + 1) * width]);
            }
        }
        Tensor::new(&[m, n], y)
    }

    /// At most 16 `P` rows of `n` numbers, column by column: `(n, 16 P)`, filled up with zeros.
    pub fn pack_lanes<'a, const P: usize>(
        rows: impl Iterator<Item = &'a [f32]> + Clone,
        n: usize,
    ) -> Vec<[[f32; 16]; P]> {
        // A few columns of all rows at a time, so that what is written stays in the cache.
        const COLUMNS_TOGETHER: usize = 64;
        let mut packed = vec![[[0.0; 16]; P]; n];
        for (piece, packed) in packed.chunks_mut(COLUMNS_TOGETHER).enumerate() {
            for (lane, row) in rows.clone().enumerate() {
                let row = &row[piece * COLUMNS_TOGETHER..];
                packed.iter_mut().zip(row).for_each(|(lanes, x)| lanes[lane / 16][lane % 16] = *x);
            }
        }
        packed
    }

    /// The reverse: `m` rows from their columns.
    pub fn unpack_lanes<const P: usize>(columns: &[[[f32; 16]; P]], m: usize) -> Vec<f32> {
        let mut rows = vec![0.0; m * columns.len()];
        for (lane, row) in rows.chunks_exact_mut(columns.len()).enumerate() {
            row.iter_mut().zip(columns).for_each(|(x, lanes)| *x = lanes[lane / 16][lane % 16]);
        }
        rows
    }

    /// Some columns of Y, `(columns, 16)`, of X as lanes, `(K, 16)`.
    #[target_feature(enable = "avx512f")]
    fn columns_of_few_rows(
        x: &[[f32; 16]],
        weight: View<'_>,
        bias: &[f32],
        columns: Range<usize>,
    ) -> Vec<[f32; 16]> {
        let mut y: Vec<[f32; 16]> = bias[columns.clone()].iter().map(|b| [*b; 16]).collect();
        let groups = columns.len() / COLUMNS_OF_FEW;
        for (i, x) in x.chunks(BLOCK_K).enumerate() {
            let row = i * BLOCK_K;
            let mut ahead = Ahead::new(weight, row + x.len(), columns.clone(), groups * x.len());
            for (group, y) in y.chunks_exact_mut(COLUMNS_OF_FEW).enumerate() {
                let first = row * weight.row_stride + columns.start + group * COLUMNS_OF_FEW;
                add_lanes(x, &weight.data[first..], weight.row_stride, y, &mut ahead);
            }
        }
        y
    }

    /// `y[j] += Σ_k w[k, j] x[k]` for a group of columns of W, whose rows lie `stride` apart.
    #[target_feature(enable = "avx512f")]
    fn add_lanes(x: &[[f32; 16]], w: &[f32], stride: usize, y: &mut [[f32; 16]], ahead: &mut Ahead<'_>) {
        let mut sums = [_mm512_setzero_ps(); COLUMNS_OF_FEW];
        for (k, x) in x.iter().enumerate() {
            ahead.fetch();
            let w = &w[k * stride..][..COLUMNS_OF_FEW];
            // SAFETY: there are 16 numbers.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*w), x, *sum);
            }
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            // SAFETY: there are 16 numbers to load, and room for as many.
            unsafe {
                let start = _mm512_loadu_ps(y.as_ptr());
                _mm512_storeu_ps(y.as_mut_ptr(), _mm512_add_ps(start, sum));
            }
        }
    }

    /// How many of `n` columns a thread takes at a time: whole panels, [`CHUNK_COLUMNS`] at the most and half
    /// as many at the least, and such that every thread has the same to do, as nearly as that goes.
    pub(super) fn chunk_width(n: usize, threads: usize) -> usize {
        const MOST: usize = CHUNK_COLUMNS / PANEL_COLUMNS;
        let share = n.div_ceil(threads).div_ceil(PANEL_COLUMNS);
        let widths = (MOST / 2..=MOST).rev().map(|panels| panels.min(share));
        let beyond = |panels: &usize| share.next_multiple_of(*panels) - share;
        widths.min_by_key(beyond).unwrap_or(MOST) * PANEL_COLUMNS
    }

    /// Tiles of [`TILE_ROWS`] rows, each column by column: `(tiles, K, TILE_ROWS)`. In the last tile, anything
    /// may stand for the rows that are missing, and behind it.
    fn pack_rows(x: View<'_>, packed: &mut Vec<f32>) {
        const COLUMNS_TOGETHER: usize = 64;
        let of_tile = x.cols * TILE_ROWS;
        let tiles = x.rows.div_ceil(TILE_ROWS);
        if packed.len() < tiles * of_tile {
            packed.resize(tiles * of_tile, 0.0);
        }
        let tiles = packed.par_chunks_exact_mut(of_tile).take(tiles);
        tiles.enumerate().for_each(|(tile, packed)| {
            let rows = tile * TILE_ROWS..x.rows.min((tile + 1) * TILE_ROWS);
            // A few columns of all rows at a time, so that what is written stays in the cache.
            for (piece, packed) in packed.chunks_mut(COLUMNS_TOGETHER * TILE_ROWS).enumerate() {
                for (i, row) in rows.clone().enumerate() {
                    let row = &x.data[row * x.row_stride + piece * COLUMNS_TOGETHER..];
                    for (column, x) in packed.chunks_exact_mut(TILE_ROWS).zip(row) {
                        column[i] = *x;
                    }
                }
            }
        });
    }

    /// Some columns of Y. `packed` is X as [`pack_rows`] makes it; `buffer` is scratch memory.
    ///
    /// # Safety
    /// `output` must hold `m` rows and at least `columns.end` columns that nobody else reads or writes
    /// meanwhile, and the machine must have AVX-512.
    unsafe fn columns_of_product(
        packed: &[f32],
        weight: View<'_>,
        bias: &[f32],
        columns: Range<usize>,
        m: usize,
        output: Output,
        buffer: &mut Vec<PanelRow>,
    ) {
        let k = weight.rows;
        for block in (0..k).step_by(BLOCK_K) {
            let block = block..k.min(block + BLOCK_K);
            pack_panels(weight, block.clone(), columns.clone(), buffer);
            let tiles = m.div_ceil(TILE_ROWS);
            let panels = columns.len().div_ceil(PANEL_COLUMNS);
            let stretches = tiles * panels * block.len().div_ceil(STRETCH);
            let mut ahead = Ahead::new(weight, block.end, columns.clone(), stretches);
            for some in (0..tiles).step_by(TILES_TOGETHER) {
                for (i, panel) in buffer.chunks_exact(block.len()).enumerate() {
                    let first = columns.start + i * PANEL_COLUMNS;
                    let width = PANEL_COLUMNS.min(columns.end - first);
                    for tile in some..tiles.min(some + TILES_TOGETHER) {
                        let rows = TILE_ROWS.min(m - tile * TILE_ROWS);
                        let tile_start = tile * k * TILE_ROWS;
                        let x = &packed[tile_start + block.start * TILE_ROWS..][..block.len() * TILE_ROWS];
                        // SAFETY: the tile's rows and columns lie within the output. The first block
                        // starts from the bias, of which there are `width` numbers from `first` on;
                        // the others from what the blocks before them have written.
                        unsafe {
                            let y = output.data.add(tile * TILE_ROWS * output.row_stride + first);
                            let (start, start_stride) = match block.start {
                                0 => (bias[first..first + width].as_ptr(), 0),
                                _ => (y.cast_const(), output.row_stride),
                            };
                            let add_tile = ADD_TILE[rows - 1];
                            let place = Place { start, start_stride, y, y_stride: output.row_stride, width };
                            add_tile(x, panel, place, &mut ahead);
                        }
                    }
                }
            }
        }
    }

    /// Fetches the block of W that comes next into the second-level cache, a few lines with every stretch of
    /// the multiplication: packing it would wait for memory, which the multiplication does not need. (Many
    /// lines at a time would make the multiplication wait: only some can be under way.)
    struct Ahead<'a> {
        weight: View<'a>,
        columns: Range<usize>,
        /// The row and column that are fetched next, and the row at which to stop.
        row: usize,
        column: usize,
        end: usize,
        /// How many cache lines to fetch with a stretch.
        lines: usize,
    }

    impl<'a> Ahead<'a> {
        /// Numbers in a cache line.
        const LINE: usize = 16;

        /// The block from row `start` on, within the time of so many stretches. After the last block of these
        /// columns comes the first one of the columns that follow, which this thread takes next as a rule.
        fn new(weight: View<'a>, start: usize, columns: Range<usize>, stretches: usize) -> Self {
            // Of a transpose, the processor fetches ahead by itself: columns lie in one piece.
            let columns = match weight.col_stride {
                1 => columns,
                _ => columns.end..columns.end,
            };
            let (row, columns) = match start < weight.rows {
                true => (start, columns),
                false => {
                    let end = weight.cols.min(columns.end + columns.len());
                    (0, columns.end..end)
                }
            };
            let end = match columns.is_empty() {
                true => row,
                false => weight.rows.min(row + BLOCK_K),
            };
            let lines = (end - row) * columns.len().div_ceil(Self::LINE);
            Self { weight, row, column: columns.start, columns, end, lines: lines.div_ceil(stretches) }
        }

        #[inline]
        fn fetch(&mut self) {
            for _ in 0..self.lines {
                if self.row == self.end {
                    return;
                }
                let number = &self.weight.data[self.row * self.weight.row_stride + self.column];
                // SAFETY: fetching ahead changes nothing that a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(number).cast()) };
                self.column += Self::LINE;
                if self.column >= self.columns.end {
                    self.column = self.columns.start;
                    self.row += 1;
                }
            }
        }
    }

    /// Some rows and columns of W in panels of [`PANEL_COLUMNS`] columns, each row by row; columns
    /// that are missing in the last panel are filled up with zeros.
    fn pack_panels(weight: View<'_>, rows: Range<usize>, columns: Range<usize>, buffer: &mut Vec<PanelRow>) {
        let panels = columns.len().div_ceil(PANEL_COLUMNS);
        buffer.resize(panels * rows.len(), PanelRow([0.0; PANEL_COLUMNS]));
        if !columns.len().is_multiple_of(PANEL_COLUMNS) {
            buffer[(panels - 1) * rows.len()..].fill(PanelRow([0.0; PANEL_COLUMNS]));
        }
        if weight.col_stride == 1 {
            pack_rows_of_panels(weight, rows, columns, buffer);
        } else {
            pack_columns_of_panels(weight, rows, columns, buffer);
        }
    }

    /// [`pack_panels`] of a weight whose rows lie in memory: row after row.
    fn pack_rows_of_panels(
        weight: View<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        buffer: &mut [PanelRow],
    ) {
        /// The rows lie in pages of their own, where the processor does not look ahead by itself.
        const ROWS_AHEAD: usize = 6;
        let panel_len = rows.len();
        for (i, row) in rows.enumerate() {
            if row + ROWS_AHEAD < weight.rows {
                let ahead = &weight.data[(row + ROWS_AHEAD) * weight.row_stride..][columns.clone()];
                for line in ahead.chunks(16) {
                    // SAFETY: fetching ahead changes nothing that a program can see.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
                }
            }
            let row = &weight.data[row * weight.row_stride..][columns.clone()];
            let (whole, rest) = row.as_chunks::<PANEL_COLUMNS>();
            for (numbers, panel) in whole.iter().zip(buffer.chunks_exact_mut(panel_len)) {
                panel[i].0 = *numbers;
            }
            if !rest.is_empty() {
                buffer[whole.len() * panel_len + i].0[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// [`pack_panels`] of the transpose of a matrix, whose columns lie in memory: panel after panel, in the
    /// first-level cache.
    fn pack_columns_of_panels(
        weight: View<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        buffer: &mut [PanelRow],
    ) {
        let panels = buffer.chunks_exact_mut(rows.len());
        for (panel, first) in panels.zip(columns.clone().step_by(PANEL_COLUMNS)) {
            for (i, column) in (first..columns.end.min(first + PANEL_COLUMNS)).enumerate() {
                let numbers = &weight.data[column * weight.col_stride..][rows.clone()];
                for (row, number) in panel.iter_mut().zip(numbers) {
                    row.0[i] = *number;
                }
            }
        }
    }

    /// Rows of W that are read together: 24 sums for two vectors of dY's rows.
    const W_ROWS: usize = 12;

    /// W dYᵀ for some rows of W, `(rows, n)`, and packed dY: `(rows, 16 P)`.
    #[target_feature(enable = "avx512f")]
    pub fn times_packed<const P: usize>(w: &[f32], dy: &[[[f32; 16]; P]], out: &mut Vec<[[f32; 16]; P]>) {
        let n = dy.len();
        for w in w.chunks(W_ROWS * n) {
            // Where rows are missing the last one stands for them.
            let mut rows = [w; W_ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &w[(i * n).min(w.len() - n)..][..n];
            }
            let products = block_times_packed(rows, dy);
            out.extend_from_slice(&products[..w.len() / n]);
        }
    }

    /// `out[i]` = Σ_k wᵢ[k] dy[k], in order of k.
    #[target_feature(enable = "avx512f")]
    fn block_times_packed<const P: usize>(
        w: [&[f32]; W_ROWS],
        dy: &[[[f32; 16]; P]],
    ) -> [[[f32; 16]; P]; W_ROWS] {
        let mut sums = [[_mm512_setzero_ps(); P]; W_ROWS];
        let n = dy.len();
        for start in (0..n).step_by(16) {
            let dy = &dy[start..n.min(start + 16)];
            let mut pieces = [&[][..]; W_ROWS];
            for (piece, row) in pieces.iter_mut().zip(w) {
                *piece = &row[start..][..dy.len()];
                fetch_ahead(piece);
            }
            for (k, dy) in dy.iter().enumerate() {
                let mut vectors = [_mm512_setzero_ps(); P];
                for (vector, numbers) in vectors.iter_mut().zip(dy) {
                    // SAFETY: there are 16 numbers.
                    *vector = unsafe { _mm512_loadu_ps(numbers.as_ptr()) };
                }
                for (sums, piece) in sums.iter_mut().zip(&pieces) {
                    let w = _mm512_set1_ps(piece[k]);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_fmadd_ps(w, vector, *sum);
                    }
                }
            }
        }
        let mut out = [[[0.0; 16]; P]; W_ROWS];
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: there is room for 16 numbers.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
        }
        out
    }

    /// Fetches what comes some numbers behind the beginning of a piece of a row.
    #[inline(always)]
    fn fetch_ahead(piece: &[f32]) {
        const NUMBERS_AHEAD: usize = 128;
        // SAFETY: fetching ahead changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(piece.as_ptr().wrapping_add(NUMBERS_AHEAD).cast()) };
    }

    type AddTile = unsafe fn(&[f32], &[PanelRow], Place, &mut Ahead<'_>);

    /// Where a tile of Y is written, what it starts from, how far apart its rows are, and how many of
    /// the [`PANEL_COLUMNS`] columns it has.
    struct Place {
        start: *const f32,
        start_stride: usize,
        y: *mut f32,
        y_stride: usize,
        width: usize,
    }

    /// [`add_tile`] for 1 to [`TILE_ROWS`] rows.
    const ADD_TILE: [AddTile; TILE_ROWS] = [
        add_tile::<1>,
        add_tile::<2>,
        add_tile::<3>,
        add_tile::<4>,
        add_tile::<5>,
        add_tile::<6>,
        add_tile::<7>,
        add_tile::<8>,
        add_tile::<9>,
        add_tile::<10>,
        add_tile::<11>,
        add_tile::<12>,
        add_tile::<13>,
        add_tile::<14>,
    ];

    /// `y[i, j] ← start[i, j] + Σ_k x[k, i] w[k, j]` for a tile of `ROWS` rows and `width` columns.
    /// `x` is `(k, TILE_ROWS)` and `panel` is `(k, PANEL_COLUMNS)`, both packed.
    ///
    /// # Safety
    /// `start` and `y` must hold `ROWS` rows of `width` ≤ [`PANEL_COLUMNS`] numbers that lie
    /// `start_stride` and `y_stride` apart, and the machine must have AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn add_tile<const ROWS: usize>(
        x: &[f32],
        panel: &[PanelRow],
        place: Place,
        ahead: &mut Ahead<'_>,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let (x, _) = x.as_chunks::<TILE_ROWS>();
        for (x, panel) in x.chunks(STRETCH).zip(panel.chunks(STRETCH)) {
            ahead.fetch();
            for (x, PanelRow(w)) in x.iter().zip(panel) {
                // SAFETY: both loads stay within the 32 numbers of `w`.
                let w = unsafe { [_mm512_loadu_ps(w.as_ptr()), _mm512_loadu_ps(w.as_ptr().add(16))] };
                // The same numbers, but the compiler does not know it: so it lets each multiplication
                // load its own, which costs nothing, instead of loading them into registers before, which
                // costs an instruction. It shows where another program runs on the same core.
                let again = black_box(x);
                for ((sums, x), again) in sums.iter_mut().zip(x).zip(again) {
                    sums[0] = _mm512_fmadd_ps(_mm512_set1_ps(*x), w[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(_mm512_set1_ps(*again), w[1], sums[1]);
                }
            }
        }
        let Place { start, start_stride, y, y_stride, width } = place;
        // The lanes of each vector that are columns of Y.
        let lanes = [0, 16].map(|first| ((1_u32 << width.saturating_sub(first).min(16)) - 1) as __mmask16);
        for (i, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: only the lanes of the `width` columns are read and written. Where there are
                // none the pointer may lie beyond the end: it is computed without following it.
                unsafe {
                    let start = start.wrapping_add(i * start_stride + 16 * half);
                    let y = y.wrapping_add(i * y_stride + 16 * half);
                    let start = _mm512_maskz_loadu_ps(lanes[half], start);
                    _mm512_mask_storeu_ps(y, lanes[half], _mm512_add_ps(start, *sum));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::tests::{assert_close, noise};
    use crate::matmul_reference;

    fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let mut y = matmul_reference(x, weight);
        y.add_to_rows(bias);
        y
    }

    #[test]
    fn every_small_linear_layer_equals_the_reference() {
        for m in 0..=17 {
            for k in [0, 1, 2, 5] {
                for n in (0..=35).chain([63, 64, 65]) {
                    let (x, w, b) = (noise(&[m, k], 1), noise(&[k, n], 2), noise(&[n], 3));
                    assert_close(&linear(&x, &w, b.data()), &reference(&x, &w, &b), k + 1);
                }
            }
        }
    }

    #[test]
    fn awkward_large_linear_layers_equal_the_reference() {
        for [m, k, n] in
            [[1, 768, 2304], [29, 771, 515], [15, 256, 257], [71, 257, 130], [721, 300, 40], [43, 513, 31]]
        {
            let (x, w, b) = (noise(&[m, k], 4), noise(&[k, n], 5), noise(&[n], 6));
            assert_close(&linear(&x, &w, b.data()), &reference(&x, &w, &b), k);
        }
    }

    #[test]
    fn columns_of_a_weight_and_rows_of_a_wider_matrix_can_be_used_as_they_lie() {
        let (x, w, b) = (noise(&[20, 50], 7), noise(&[30, 100], 8), noise(&[40], 9));
        let (x, w) = (x.view().columns(10..40), w.view().columns(60..100));
        let mut expected = matmul_reference(x, w);
        expected.add_to_rows(&b);
        assert_close(&linear(x, w, b.data()), &expected, 30);
    }

    #[test]
    fn a_transposed_weight_gives_the_same_bits_as_one_that_is_laid_out_anew() {
        for [m, k, n] in [[1, 1, 1], [3, 1, 40], [15, 257, 33], [2, 64, 1100], [30, 520, 96]] {
            let (x, t, b) = (noise(&[m, k], 1), noise(&[n, k], 2), noise(&[n], 3));
            let columns: Vec<f32> =
                (0..k).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| t.row(j)[i]).collect();
            let w = Tensor::new(&[k, n], columns);
            let got = linear(&x, t.view().t(), b.data());
            assert_eq!(got, linear(&x, &w, b.data()), "{m} × {k} × {n}");
        }
    }

    #[test]
    fn the_backward_pass_is_the_product_with_the_transpose() {
        for [m, k, n] in [[0, 3, 600], [1, 1, 512], [15, 70, 771], [33, 129, 1030], [40, 31, 40], [2, 5, 3]] {
            let (dy, w) = (noise(&[m, n], 1), noise(&[k, n], 2));
            assert_close(&linear_backward(&dy, &w), &matmul_reference(&dy, w.view().t()), n);
        }
    }

    #[test]
    fn a_row_of_the_backward_pass_has_the_same_bits_everywhere() {
        let (dy, w) = (noise(&[65, 700], 5), noise(&[90, 700], 6));
        let whole = linear_backward(&dy, &w);
        for rows in [0..1, 3..14, 31..64] {
            let some = Tensor::new(&[rows.len(), 700], dy.data()[rows.start * 700..rows.end * 700].to_vec());
            let part = linear_backward(&some, &w);
            rows.enumerate().for_each(|(i, row)| assert_eq!(part.row(i), whole.row(row), "row {row}"));
        }
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| linear_backward(&dy, &w)), whole, "{threads} threads");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_every_batch_and_on_any_number_of_threads() {
        // Whole groups of columns, and not; few rows are the lanes of a vector only of the first.
        for n in [720, 700] {
            let (x, w, b) = (noise(&[65, 300], 5), noise(&[300, n], 6), noise(&[n], 7));
            let whole = linear(&x, &w, b.data());
            for rows in [0..1, 3..14, 5..13, 7..23, 13..28, 60..65] {
                let part = linear(x.view().rows(rows.clone()), &w, b.data());
                for (i, row) in rows.enumerate() {
                    assert_eq!(part.row(i), whole.row(row), "row {row} of {n} columns");
                }
            }
            let few = x.view().rows(20..35);
            let of_few = linear(few, &w, b.data());
            for threads in [1, 2, 3, 7] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| linear(&x, &w, b.data())), whole, "{threads} threads");
                assert_eq!(pool.install(|| linear(few, &w, b.data())), of_few, "{threads} threads");
            }
        }
    }

    #[test]
    fn every_thread_has_the_same_to_do() {
        // The widths of GPT-2's layers, and its vocabulary.
        for n in [768, 2304, 3072, 1024, 4096, 1600, 6400, 50257] {
            for threads in [1, 2, 3, 4] {
                let width = avx512::chunk_width(n, threads);
                let most = n.div_ceil(width).div_ceil(threads) * width;
                assert!(width <= CHUNK_COLUMNS && width.is_multiple_of(PANEL_COLUMNS));
                assert!(most * threads <= n * 5 / 4, "{n} columns, {threads} threads: {width}");
            }
        }
        assert_eq!([1, 32, 40, 256].map(|n| avx512::chunk_width(n, 1)), [32, 32, 64, 256]);
        assert_eq!([768, 2304, 3072].map(|n| avx512::chunk_width(n, 2)), [192, 192, 256]);
    }

    #[test]
    #[should_panic(expected = "linear layer of [2, 3] with a weight of [4, 5] and a bias of [5]")]
    fn shapes_that_do_not_fit_panic_with_all_of_them() {
        linear(&Tensor::zeros(&[2, 3]), &Tensor::zeros(&[4, 5]), &[0.0; 5]);
    }
}

//! Layers of bf16 by AMX: an instruction multiplies 32 inputs of sixteen rows by as many of sixteen outputs.
//!
//! A tile is sixteen lines of 64 bytes. Of inputs a line is a row's 32; of weights it is two inputs of sixteen outputs,
//! of sums a row's sixteen. A step of the loop reads two tiles of inputs and two of weights, and adds their four
//! products to four tiles of sums: a read a product, which takes half as long as that (Intel 64 and IA-32
//! Architectures Optimization Reference Manual, chapter on AMX).
//!
//! The processor has denormals count as nothing here.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _mm512_load_ps};
use std::sync::OnceLock;

use super::pairs::{self, LANES, Pairs};
use super::{Then, Weights, finish, first_of, pair_of};

/// Lines of a tile.
const ROWS: usize = 16;
/// Inputs of a line.
const INPUTS: usize = 2 * LANES;
/// Outputs of a panel, which is two tiles wide.
const PANEL: usize = 2 * LANES;

/// A row of a tile: pairs of bf16, the first in the lower half.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line([u32; LANES]);

/// Four tiles of sums: a row's are beside each other.
#[repr(align(64))]
struct Sums([[f32; PANEL]; 2 * ROWS]);

/// A machine that multiplies tiles, and lets this process do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matrix::kernels) struct Tiles(());

impl Tiles {
    /// This one, where it does. Threads have room for tiles only once their process has asked for it, which Linux
    /// grants for good.
    pub(super) fn find() -> Option<Self> {
        const BF16: u32 = 1 << 22;
        const TILES: u32 = 1 << 24;
        const REQUEST: libc::c_ulong = 0x1023;
        const TILES_STATE: libc::c_ulong = 18;
        static FOUND: OnceLock<bool> = OnceLock::new();
        let is_found = *FOUND.get_or_init(|| {
            let has = |features: u32| __cpuid_count(7, 0).edx & features == features;
            // SAFETY: the call takes two numbers and touches no memory.
            let granted = || unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILES_STATE) } == 0;
            Pairs::find().is_some() && has(BF16 | TILES) && granted()
        });
        is_found.then_some(Self(()))
    }

    /// One whose instructions are emulated.
    #[cfg(test)]
    pub(super) fn emulated(_: Pairs) -> Self {
        Self(())
    }

    /// Outputs of rows, over panels of [`panels`].
    pub(super) fn apply(
        self,
        layer: &Weights,
        panels: &[Line],
        inputs: &[f32],
        then: Then,
        outputs: &mut [f32],
    ) {
        // SAFETY: the instructions were found.
        unsafe { apply(layer, panels, inputs, then, outputs) }
    }
}

/// Weights in panels: panel after panel, 32 inputs after 32, two tiles.
pub(super) fn panels(weight: &[f32], n_inputs: usize) -> Vec<Line> {
    let (n_steps, n_outputs) = (n_inputs.div_ceil(INPUTS), weight.len() / n_inputs);
    let mut panels = vec![Line([0; LANES]); n_outputs.div_ceil(PANEL) * n_steps * 2 * ROWS];
    for (output, weights) in weight.chunks_exact(n_inputs).enumerate() {
        let (panel, tile) = (output / PANEL, output % PANEL / LANES);
        for (pair, weights) in weights.chunks(2).enumerate() {
            let line = ((panel * n_steps + pair / ROWS) * 2 + tile) * ROWS + pair % ROWS;
            panels[line].0[output % LANES] = pair_of(weights);
        }
    }
    panels
}

/// # Safety
/// Tiles are there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn apply(layer: &Weights, panels: &[Line], inputs: &[f32], then: Then, outputs: &mut [f32]) {
    let (n_inputs, n_outputs) = (layer.n_inputs, layer.n_outputs);
    let two_tiles = n_inputs.div_ceil(INPUTS) * 2 * ROWS;
    let tiles = packed(inputs, n_inputs);
    let mut sums = Sums([[0.0; PANEL]; 2 * ROWS]);
    // SAFETY: tiles are there.
    let configured = unsafe { Configured::new() };
    for (at, panel) in panels.chunks_exact(two_tiles).enumerate() {
        let (from, to) = (at * PANEL, n_outputs.min((at + 1) * PANEL));
        for (tiles, rows) in tiles.chunks(two_tiles).zip(outputs.chunks_mut(2 * ROWS * n_outputs)) {
            configured.multiply(tiles, panel, &mut sums);
            for (sums, row) in sums.0.iter().zip(rows.chunks_exact_mut(n_outputs)) {
                // SAFETY: a row's sums are two vectors, and lie at the start of one.
                let sums =
                    unsafe { [_mm512_load_ps(sums.as_ptr()), _mm512_load_ps(sums.as_ptr().add(LANES))] };
                pairs::write(&sums, &layer.bias[from..to], &mut row[from..to]);
            }
            finish(rows, n_outputs, (from, to), then);
        }
    }
}

/// Rows in tiles: sixteen rows after sixteen, 32 inputs after 32; missing rows and inputs are zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn packed(inputs: &[f32], n_inputs: usize) -> Vec<Line> {
    let n_steps = n_inputs.div_ceil(INPUTS);
    let mut lines = Vec::with_capacity((inputs.len() / n_inputs).div_ceil(ROWS) * n_steps * ROWS);
    for rows in inputs.chunks(ROWS * n_inputs) {
        for step in 0..n_steps {
            for row in 0..ROWS {
                let values = rows.get(row * n_inputs + step * INPUTS..(row + 1) * n_inputs).unwrap_or(&[]);
                lines.push(Line(pairs::rounded(&first_of(values))));
            }
        }
    }
    lines
}

/// How tiles are laid out: palette 1, eight tiles of sixteen lines of 64 bytes.
#[repr(align(64))]
struct Layout {
    bytes: [u8; 64],
}

static LAYOUT: Layout = {
    let mut layout = [0; 64];
    layout[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        layout[16 + 2 * tile] = (4 * LANES) as u8;
        layout[48 + tile] = ROWS as u8;
        tile += 1;
    }
    Layout { bytes: layout }
};

/// This thread's tiles, for as long as it needs them: the kernel then has no more to save.
struct Configured;

impl Configured {
    /// # Safety
    /// Tiles are there.
    unsafe fn new() -> Self {
        // SAFETY: the instruction reads the layout's 64 bytes, and empties all tiles.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) LAYOUT.bytes.as_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self
    }

    /// The products of one tile or two of rows, step after step, with a panel.
    #[inline]
    fn multiply(&self, rows: &[Line], panel: &[Line], sums: &mut Sums) {
        let n_steps = panel.len() / (2 * ROWS);
        let first = rows.as_ptr();
        let fits = n_steps > 0 && (rows.len() == n_steps * ROWS || rows.len() == panel.len());
        assert!(fits && panel.len() == n_steps * 2 * ROWS, "steps of a product");
        if rows.len() == n_steps * ROWS {
            // SAFETY: tiles are configured; of each step a tile of rows and two of weights are read, and two of sums
            // written, which is what there is.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "2:",
                    "tileloadd tmm4, [{rows} + {line}*1]",
                    "tileloadd tmm6, [{panel} + {line}*1]",
                    "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {rows}, 1024",
                    "add {panel}, 2048",
                    "dec {left}",
                    "jnz 2b",
                    "tilestored [{sums} + {wide}*1], tmm0",
                    "tilestored [{sums} + {wide}*1 + 64], tmm1",
                    rows = inout(reg) first => _,
                    panel = inout(reg) panel.as_ptr() => _,
                    left = inout(reg) n_steps => _,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    line = in(reg) size_of::<Line>(),
                    wide = in(reg) size_of::<[f32; PANEL]>(),
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
            return;
        }
        // SAFETY: tiles are configured; of each step two tiles of rows and two of weights are read, and four of sums
        // written, which is what there is.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{rows} + {line}*1]",
                "tileloadd tmm6, [{panel} + {line}*1]",
                "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{others} + {line}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {rows}, 1024",
                "add {others}, 1024",
                "add {panel}, 2048",
                "dec {left}",
                "jnz 2b",
                "tilestored [{sums} + {wide}*1], tmm0",
                "tilestored [{sums} + {wide}*1 + 64], tmm1",
                "tilestored [{sums} + {wide}*1 + 2048], tmm2",
                "tilestored [{sums} + {wide}*1 + 2112], tmm3",
                rows = inout(reg) first => _,
                others = inout(reg) first.add(n_steps * ROWS) => _,
                panel = inout(reg) panel.as_ptr() => _,
                left = inout(reg) n_steps => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                line = in(reg) size_of::<Line>(),
                wide = in(reg) size_of::<[f32; PANEL]>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: tiles are there, or none would have been configured.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

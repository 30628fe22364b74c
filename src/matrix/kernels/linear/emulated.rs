//! AMX for machines that lack it, so that its kernel is tested wherever there is AVX512-BF16: a processor without these
//! instructions raises an illegal-instruction signal for each, whose handler does here what the manual says that it
//! does, on this thread's own tiles, and steps over it (Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2). Far too slow for anything but tests.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::Once;

use super::pairs::Pairs;
use super::{Bf16By, tiles};

const LINE: usize = 64;
const LINES: usize = 16;

/// A thread's tiles and how they are laid out.
struct Tiles {
    line_bytes: [u16; 8],
    lines: [u8; 8],
    data: [[[u8; LINE]; LINES]; 8],
}

thread_local! {
    static TILES: UnsafeCell<Tiles> =
        const { UnsafeCell::new(Tiles { line_bytes: [0; 8], lines: [0; 8], data: [[[0; LINE]; LINES]; 8] }) };
}

/// Has tiles work on this machine, by its own instructions or by these. Nothing where rows could not even be packed.
pub(in crate::matrix::kernels) fn tiles() -> Option<Bf16By> {
    static INSTALLED: Once = Once::new();
    let pairs = Pairs::find()?;
    let found = tiles::Tiles::find();
    if found.is_none() {
        INSTALLED.call_once(|| {
            // SAFETY: the action is whole, and its handler has the signature that its flag asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_illegal_instruction as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
            }
        });
    }
    Some(Bf16By::Tiles(found.unwrap_or_else(|| tiles::Tiles::emulated(pairs))))
}

extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over the thread's context; registers are changed only where an instruction was done.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        match TILES.with(|tiles| step(&mut *tiles.get(), at, registers)) {
            Some(n_bytes) => registers[libc::REG_RIP as usize] += n_bytes as i64,
            None => _ = libc::signal(libc::SIGILL, libc::SIG_DFL),
        }
    }
}

/// Does the instruction at an address, and says how long it is; nothing if it is none of AMX.
///
/// # Safety
/// The address is that of an instruction, and what this one reads and writes is the program's.
unsafe fn step(tiles: &mut Tiles, at: *const u8, registers: &[i64; 23]) -> Option<usize> {
    // SAFETY: the shortest of these instructions is that long, and no other is read further.
    let [0xc4, first, second, opcode, mode] = (unsafe { *at.cast::<[u8; 5]>() }) else { return None };
    // The long form of VEX: inverted bits that extend registers, the map of opcodes, one operand, the prefix.
    let (extend_index, extend_base) = ((!first >> 6 & 1) << 3, (!first >> 5 & 1) << 3);
    let (map, third, prefix) = (first & 0x1f, usize::from(!second >> 3 & 7), second & 3);
    let (to, from) = (usize::from(mode >> 3 & 7), usize::from(mode & 7));
    if map != 2 {
        return None;
    }
    if mode >> 6 == 3 {
        match (prefix, opcode, mode) {
            (0, 0x49, 0xc0) => (tiles.line_bytes, tiles.lines) = ([0; 8], [0; 8]),
            (3, 0x49, _) => tiles.data[to] = [[0; LINE]; LINES],
            (2, 0x5c, _) => tiles.multiply(to, from, third),
            _ => return None,
        }
        return Some(5);
    }
    // A base, mostly with an index: by its scale, the stride of lines.
    const IN_ORDER: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let register = |name: u8| registers[IN_ORDER[usize::from(name)] as usize];
    let (base, stride, rest) = if from == 4 {
        // SAFETY: with this mode the byte of base and index follows.
        let byte = unsafe { *at.add(5) };
        let index = byte >> 3 & 7 | extend_index;
        let stride = if index == 4 { 0 } else { register(index) << (byte >> 6) };
        (register(byte & 7 | extend_base), stride, 6)
    } else {
        (register(from as u8 | extend_base), 0, 5)
    };
    let (displacement, n_bytes) = match mode >> 6 {
        0 => (0, rest),
        // SAFETY: with this mode a displacement of one byte follows.
        1 => (i64::from(unsafe { *at.add(rest).cast::<i8>() }), rest + 1),
        // SAFETY: with this mode a displacement of four bytes follows.
        _ => (i64::from(unsafe { at.add(rest).cast::<i32>().read_unaligned() }), rest + 4),
    };
    let memory = (base + displacement) as *mut u8;
    match (prefix, opcode) {
        (0, 0x49) => {
            // SAFETY: the instruction reads 64 bytes.
            let layout = unsafe { *memory.cast::<[u8; 64]>() };
            assert_eq!(layout[0], 1, "palette");
            tiles.line_bytes = std::array::from_fn(|tile| {
                u16::from_le_bytes([layout[16 + 2 * tile], layout[17 + 2 * tile]])
            });
            tiles.lines = std::array::from_fn(|tile| layout[48 + tile]);
            tiles.data = [[[0; LINE]; LINES]; 8];
        }
        (2 | 3, 0x4b) => {
            let n_bytes = usize::from(tiles.line_bytes[to]);
            for (line, data) in tiles.data[to].iter_mut().take(usize::from(tiles.lines[to])).enumerate() {
                let memory = memory.wrapping_offset(line as isize * stride as isize);
                // SAFETY: the instruction reads or writes as many bytes of each line.
                unsafe {
                    if prefix == 3 {
                        std::ptr::copy_nonoverlapping(memory, data.as_mut_ptr(), n_bytes);
                    } else {
                        std::ptr::copy_nonoverlapping(data.as_ptr(), memory, n_bytes);
                    }
                }
            }
        }
        _ => return None,
    }
    Some(n_bytes)
}

impl Tiles {
    /// Sums of products of pairs: first and second products of all pairs apart, then both to the sums; denormals are
    /// nothing.
    fn multiply(&mut self, to: usize, rows: usize, weights: usize) {
        let flushed = |value: f32| if value.is_subnormal() { 0.0 } else { value };
        let pair = |line: &[u8; LINE], at: usize| {
            let bits =
                u32::from_le_bytes([line[4 * at], line[4 * at + 1], line[4 * at + 2], line[4 * at + 3]]);
            [flushed(f32::from_bits(bits << 16)), flushed(f32::from_bits(bits & 0xffff_0000))]
        };
        let n_pairs = usize::from(self.line_bytes[rows]) / 4;
        assert_eq!(n_pairs, usize::from(self.lines[weights]), "pairs of rows and of weights");
        for row in 0..usize::from(self.lines[to]) {
            for output in 0..usize::from(self.line_bytes[to]) / 4 {
                let mut sums = [0f32; 2];
                for at in 0..n_pairs {
                    let (x, w) = (pair(&self.data[rows][row], at), pair(&self.data[weights][at], output));
                    sums = std::array::from_fn(|half| flushed(x[half].mul_add(w[half], sums[half])));
                }
                let slot = &mut self.data[to][row][4 * output..4 * output + 4];
                let before = f32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]);
                let after = flushed(flushed(before) + flushed(sums[0] + sums[1]));
                slot.copy_from_slice(&after.to_le_bytes());
            }
        }
    }
}

//! The kernel that reads four words at a time.
//!
//! AVX2 loads under a mask of vectors, and has no instruction that moves chosen words together. Both are tables of 16
//! entries: the mask of the load by the bits that are asked for, and the permutation by the words that are
//! not zero.
//!
//! It is assembly for the reasons of [`super::avx512`]; and until Rust 1.87 the names of these instructions are
//! functions that only unsafe code may call.
//!
//! # Safety
//! Vector instructions, where the processor has them.
#![allow(unsafe_code)]

use super::WordMask;
use crate::addr::Addr;

/// Words of a vector.
const LANES: usize = 4;

/// One vector for each choice of words.
#[repr(align(32))]
struct Table<T>([T; 1 << LANES]);

/// All ones in the words of the choice.
static CHOSEN: Table<[u64; LANES]> = chosen();

/// The halves of the words of the choice, in their order; behind them the first word, again and again.
static TOGETHER: Table<[u32; 2 * LANES]> = together();

const fn chosen() -> Table<[u64; LANES]> {
    let mut table = [[0; LANES]; 1 << LANES];
    let mut choice = 0;
    while choice < 1 << LANES {
        let mut lane = 0;
        while lane < LANES {
            table[choice][lane] = if choice >> lane & 1 == 1 { u64::MAX } else { 0 };
            lane += 1;
        }
        choice += 1;
    }
    Table(table)
}

const fn together() -> Table<[u32; 2 * LANES]> {
    let mut table = [[0; 2 * LANES]; 1 << LANES];
    let mut choice = 0;
    while choice < 1 << LANES {
        let (mut lane, mut to) = (0, 0);
        while lane < LANES {
            if choice >> lane & 1 == 1 {
                table[choice][2 * to] = 2 * lane as u32;
                table[choice][2 * to + 1] = 2 * lane as u32 + 1;
                to += 1;
            }
            lane += 1;
        }
        choice += 1;
    }
    Table(table)
}

/// As [`super::scalar::gather`].
///
/// # Safety
/// As [`super::Kernel::gather`], and the processor has AVX2. At `out` is room for a page of words and a vector
/// more.
pub(super) unsafe fn gather(base: Addr, mask: &WordMask, out: *mut usize) -> usize {
    let behind: *mut usize;
    let masks = mask.as_ptr_range();
    // SAFETY: reads `mask`, the tables at choices below 16, and of the memory behind `base` the words of `mask` and
    // no others, which the caller vouches for. Writes a vector where the next value goes, and goes on behind the
    // values that are not zero: so it writes no more than a vector behind as many values as `mask` has bits.
    unsafe {
        core::arch::asm!(
            "vpxor ymm2, ymm2, ymm2",
            "2:",
            "mov {word}, [{masks}]",
            "add {masks}, 8",
            "mov {at}, {base}",
            "add {base}, 512",
            "test {word}, {word}",
            "jz 4f",
            "3:",
            "mov {choice:e}, {word:e}",
            "and {choice:e}, 15",
            "shl {choice:e}, 5",
            "vmovdqa ymm1, [{chosen} + {choice}]",
            "vpmaskmovq ymm0, ymm1, [{at}]",
            "vpcmpeqq ymm1, ymm0, ymm2",
            "vmovmskpd {choice:e}, ymm1",
            "xor {choice:e}, 15",
            "popcnt {count:e}, {choice:e}",
            "shl {choice:e}, 5",
            "vmovdqa ymm1, [{together} + {choice}]",
            "vpermd ymm0, ymm1, ymm0",
            "vmovdqu [{out}], ymm0",
            "lea {out}, [{out} + 8 * {count}]",
            "add {at}, 32",
            "shr {word}, 4",
            "jnz 3b",
            "4:",
            "cmp {masks}, {end}",
            "jne 2b",
            "vzeroupper",
            masks = inout(reg) masks.start => _,
            end = in(reg) masks.end,
            base = inout(reg) base.get() => _,
            out = inout(reg) out => behind,
            chosen = in(reg) &raw const CHOSEN,
            together = in(reg) &raw const TOGETHER,
            word = out(reg) _,
            at = out(reg) _,
            choice = out(reg) _,
            count = out(reg) _,
            // The upper halves of all of them are cleared at the end.
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
    // SAFETY: both point into what is at `out`, or just behind the values.
    unsafe { behind.offset_from(out) as usize }
}

const _: () = assert!(size_of::<Table<[u64; LANES]>>() == 32 << LANES);
const _: () = assert!(size_of::<Table<[u32; 2 * LANES]>>() == 32 << LANES);

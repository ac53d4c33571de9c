//! The kernel that reads eight words at a time: a cache line.
//!
//! A byte of the mask is the mask of a load, which reads only the words that are asked for; comparing with zero
//! under the same mask leaves those that are not; compressing moves them together. The values are compressed in a
//! register and stored as a whole vector: compressing into memory is many times slower on some processors.
//!
//! The whole loop is assembly. The compiler's own names for these instructions are younger than the oldest compiler
//! that this crate is built with, and the loads would have to be assembly in any case (see the head of the
//! module).
//!
//! # Safety
//! Vector instructions, where the processor has them.
#![allow(unsafe_code)]

use super::WordMask;
use crate::addr::Addr;

/// As [`super::scalar::gather`].
///
/// # Safety
/// As [`super::Kernel::gather`], and the processor has AVX-512 F and DQ. At `out` is room for a page of words and a
/// vector more.
pub(super) unsafe fn gather(base: Addr, mask: &WordMask, out: *mut usize) -> usize {
    let behind: *mut usize;
    let masks = mask.as_ptr_range();
    // SAFETY: reads `mask`, and of the memory behind `base` the words of `mask` and no others, which the caller
    // vouches for. Writes a vector where the next value goes, and goes on behind the values that are not zero: so
    // it writes no more than a vector behind as many values as `mask` has bits.
    unsafe {
        core::arch::asm!(
            "2:",
            "mov {word}, [{masks}]",
            "add {masks}, 8",
            "mov {at}, {base}",
            "add {base}, 512",
            "test {word}, {word}",
            "jz 4f",
            "3:",
            "kmovb k1, {word:e}",
            "vmovdqu64 zmm0 {{k1}} {{z}}, [{at}]",
            "vptestmq k1 {{k1}}, zmm0, zmm0",
            "vpcompressq zmm0 {{k1}} {{z}}, zmm0",
            "kmovb {count:e}, k1",
            "popcnt {count:e}, {count:e}",
            "vmovdqu64 [{out}], zmm0",
            "lea {out}, [{out} + 8 * {count}]",
            "add {at}, 64",
            "shr {word}, 8",
            "jnz 3b",
            "4:",
            "cmp {masks}, {end}",
            "jne 2b",
            "vzeroupper",
            masks = inout(reg) masks.start => _,
            end = in(reg) masks.end,
            base = inout(reg) base.get() => _,
            out = inout(reg) out => behind,
            word = out(reg) _,
            at = out(reg) _,
            count = out(reg) _,
            out("k1") _,
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

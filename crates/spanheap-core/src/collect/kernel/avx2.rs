//! The kernel that reads four words at a time.
//!
//! AVX2 loads under a mask of vectors, and has no instruction that moves chosen words together. Both are tables of 16
//! entries: the mask of the load by the bits that are asked for, and the permutation by the words that are
//! not zero.
//!
//! # Safety
//! Vector instructions, where the processor has them.
#![allow(unsafe_code)]

use super::WordMask;
use crate::addr::{Addr, Bytes, WORD_BYTES};
use core::arch::x86_64::{
    __m256i, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_load_si256, _mm256_movemask_pd,
    _mm256_permutevar8x32_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
};

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

/// The vector for a choice.
///
/// # Safety
/// The processor has AVX2, and `choice` is below 16.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn entry<T>(table: &'static Table<T>, choice: usize) -> __m256i {
    debug_assert!(choice < 1 << LANES && size_of::<T>() == size_of::<__m256i>());
    // SAFETY: an entry of the table, which is as long as a vector and aligned like one.
    unsafe { _mm256_load_si256(table.0.as_ptr().add(choice).cast()) }
}

/// As [`super::scalar::gather`].
///
/// # Safety
/// As [`super::Kernel::gather`], and the processor has AVX2. At `out` is room for a page of words and a vector
/// more.
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn gather(base: Addr, mask: &WordMask, out: *mut usize) -> usize {
    let mut count = 0;
    for (index, &word) in mask.iter().enumerate() {
        let mut rest = word;
        let mut at = base + Bytes::new(index * 64 * WORD_BYTES);
        while rest != 0 {
            let asked = rest as usize % (1 << LANES);
            rest >>= LANES;
            // SAFETY: a choice of four words.
            let choice = unsafe { entry(&CHOSEN, asked) };
            let values: __m256i;
            // SAFETY: reads the words of `mask` and no others; the caller's promise. In assembly, because they
            // change meanwhile: see the head of the module.
            unsafe {
                core::arch::asm!(
                    "vpmaskmovq {values}, {choice}, [{at}]",
                    values = lateout(ymm_reg) values,
                    choice = in(ymm_reg) choice,
                    at = in(reg) at.get(),
                    options(readonly, nostack, preserves_flags),
                );
            }
            let zeros = _mm256_cmpeq_epi64(values, _mm256_setzero_si256());
            let there = _mm256_movemask_pd(_mm256_castsi256_pd(zeros)) as usize ^ (1 << LANES) - 1;
            // SAFETY: a choice of four words.
            let order = unsafe { entry(&TOGETHER, there) };
            let packed = _mm256_permutevar8x32_epi32(values, order);
            // SAFETY: no more values than words have been written before, so there is room for a vector.
            unsafe { _mm256_storeu_si256(out.add(count).cast(), packed) };
            count += there.count_ones() as usize;
            at = at + Bytes::new(LANES * WORD_BYTES);
        }
    }
    count
}

//! Where the pointers of a page lie, word by word.
//!
//! A page of slots of one size and one layout repeats the same pointer words from slot to slot: that is a [`Pattern`],
//! made once for each class of spans. Which of these words belong to the objects that are to be scanned follows
//! from the bits of the objects, all at once:
//! ```text
//!   granules     ....1...1.......   two objects
//!   starts       1 at the first word of each: granules spread to words
//!   ends         starts, shifted by the words of a slot
//!   ends - starts, as one number of 1024 bits: ones in all words of the objects
//! ```
//! An object whose end is the start of the next one takes part in the borrow of one subtraction, and the words of
//! both are ones all the same. At the end of the page, the borrow runs out of the number.
//!
//! In a span of 24-byte slots every second object begins in the middle of its granule, and so with the second word of
//! it. No granule has two starts, so the words at which slots begin say which one it is.

use crate::addr::{GRANULE_BYTES, PAGE_BITMAP_WORDS, PAGE_BYTES, WORD_BYTES};

/// Words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / WORD_BYTES;

/// Words of a page: bit w of the whole, which begins with the lowest bit of the first word, stands for word w.
pub type WordMask = [u64; PAGE_WORDS / 64];

/// The longest slot that can have a pattern, in words: a shift by more is no shift between neighbours.
const MOST_WORDS: usize = 64;

/// The pointer words of a page of slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// Words of a slot.
    words: usize,
    /// The words at which slots begin.
    starts: WordMask,
    /// The words of slots that may hold a pointer.
    pointers: WordMask,
}

impl Pattern {
    /// The pattern of slots of `slot` bytes of which the words of `mask` hold pointers, repeated each `period` words
    /// as long as a whole period fits, or once if that is 0. The first slot begins with the page. `None` if slots are
    /// too long, or so short that two begin in a granule, or do not consist of words.
    pub fn new(slot: usize, mask: u64, period: u32) -> Option<Pattern> {
        let words = slot / WORD_BYTES;
        if slot % WORD_BYTES != 0 || slot < GRANULE_BYTES || words > MOST_WORDS {
            return None;
        }
        let mut pointers = mask;
        let period = period as usize;
        if let Some(periods) = words.checked_div(period) {
            pointers = (0..periods).fold(0, |all, n| all | mask << (n * period));
        }
        let mut pattern = Pattern { words, starts: [0; 16], pointers: [0; 16] };
        for slot in 0..PAGE_WORDS / words {
            let (index, bit) = (slot * words / 64, slot * words % 64);
            pattern.starts[index] |= 1 << bit;
            pattern.pointers[index] |= pointers << bit;
            if bit != 0 && index + 1 < pattern.pointers.len() {
                pattern.pointers[index + 1] |= pointers >> (64 - bit);
            }
        }
        Some(pattern)
    }

    /// The same with other words, of which some hold pointers: any.
    pub fn with_pointers(self, pointers: WordMask) -> Pattern {
        Pattern { pointers, ..self }
    }

    /// The pointer words of `objects`: of slots, by the granules in which they begin.
    #[inline]
    pub fn expand(&self, objects: &[u64; PAGE_BITMAP_WORDS]) -> WordMask {
        let mut words: WordMask = [0; 16];
        for (index, &granules) in objects.iter().enumerate() {
            words[2 * index] = spread(granules as u32);
            words[2 * index + 1] = spread((granules >> 32) as u32);
        }
        if self.words % 2 != 0 {
            for (word, starts) in words.iter_mut().zip(&self.starts) {
                *word = (*word | *word << 1) & starts;
            }
        }
        let (mut carried, mut borrow) = (0, false);
        for (word, pointers) in words.iter_mut().zip(&self.pointers) {
            let starts = *word;
            // In two steps: a slot may have all 64 words, and then all of the shift is carried.
            let ends = carried | starts << (self.words - 1) << 1;
            carried = starts >> (64 - self.words);
            let (filled, below) = ends.overflowing_sub(starts);
            let (filled, borrowed) = filled.overflowing_sub(u64::from(borrow));
            borrow = below | borrowed;
            *word = filled & pointers;
        }
        words
    }
}

/// Bit i of `bits` becomes bit 2 i.
#[inline]
fn spread(bits: u32) -> u64 {
    let mut bits = u64::from(bits);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

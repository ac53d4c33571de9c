//! Searching, counting and walking bits in words and in slices of words.
//!
//! Everything here is arithmetic on numbers that the caller owns: no atomics, no locks, no
//! `unsafe`. Bit i of a slice is bit `i % 64` of word `i / 64`; the lowest bit comes first, so the
//! order of bits is the order of addresses wherever a bitmap describes memory.
//!
//! # The two tricks
//!
//! **Runs by shifting.** In `w & (w >> 1)` a bit survives when the bit above it was set too: every
//! run of ones loses its top bit. Once s bits were removed, a one says that s + 1 ones begin here;
//! two of these that are at most s + 1 apart leave no gap between them, so the next shift may be as
//! wide as that. `shorten_runs` doubles its shifts and needs log2(n) steps where the obvious loop
//! needs n.
//!
//! **Edges by counting zeros.** The first one at or above a position is `trailing_zeros` of the
//! word with the lower bits masked off; the first zero is the first one of the complement. All
//! iteration is made of these two, so its cost grows with the number of words and runs, not with
//! the number of bits.

/// Bits in a word.
pub const WORD_BITS: usize = u64::BITS as usize;

/// The word whose bits `[start, start + len)` are one.
///
/// # Panics
/// When the bits do not fit in a word, or when `len` is 0.
#[inline]
pub const fn mask64(start: usize, len: usize) -> u64 {
    assert!(len >= 1 && start + len <= WORD_BITS, "a word has 64 bits");
    (u64::MAX >> (WORD_BITS - len)) << start
}

/// Removes the top `by` ones of every run of ones; runs of at most `by` ones disappear.
///
/// `by` is at most 63.
#[inline]
const fn shorten_runs(mut word: u64, mut by: u32) -> u64 {
    debug_assert!(by < u64::BITS);
    // `step` is one more than the bits removed so far: the widest shift that leaves no gap.
    let mut step = 1;
    while by > 0 {
        if word == 0 {
            return 0;
        }
        let shift = if step < by { step } else { by };
        word &= word >> shift;
        by -= shift;
        step *= 2;
    }
    word
}

/// The lowest position of `n` consecutive ones in `word`.
///
/// # Panics
/// When `n` is 0.
#[inline]
pub const fn find_bit_range64(word: u64, n: usize) -> Option<u32> {
    assert!(n >= 1, "a run has at least one bit");
    if n > WORD_BITS {
        return None;
    }
    // What is left of a run of m >= n ones are its lowest m - (n - 1) bits: the lowest survivor is
    // the start of the lowest run that is long enough.
    let starts = shorten_runs(word, n as u32 - 1);
    if starts == 0 { None } else { Some(starts.trailing_zeros()) }
}

/// The length of the longest run of ones in `word`, or `at_least` when no run is longer than that.
///
/// A caller that knows a long run already passes its length, and most words cost a few shifts.
#[inline]
pub const fn longest_run64(word: u64, at_least: u32) -> u32 {
    if at_least >= u64::BITS {
        return at_least;
    }
    let mut rest = shorten_runs(word, at_least);
    let mut longest = at_least;
    while rest != 0 {
        rest &= rest >> 1;
        longest += 1;
    }
    longest
}

/// Calls `f(word index, mask)` for every word that holds bits of `[start, start + len)`.
#[inline]
fn for_each_word(start: usize, len: usize, mut f: impl FnMut(usize, u64)) {
    let end = start + len;
    let mut at = start;
    while at < end {
        let bit = at % WORD_BITS;
        let here = (WORD_BITS - bit).min(end - at);
        f(at / WORD_BITS, mask64(bit, here));
        at += here;
    }
}

/// Sets the bits `[start, start + len)`.
///
/// # Panics
/// When the range reaches past the last word.
#[inline]
pub fn set_range(words: &mut [u64], start: usize, len: usize) {
    for_each_word(start, len, |i, mask| words[i] |= mask);
}

/// Clears the bits `[start, start + len)`.
///
/// # Panics
/// When the range reaches past the last word.
#[inline]
pub fn clear_range(words: &mut [u64], start: usize, len: usize) {
    for_each_word(start, len, |i, mask| words[i] &= !mask);
}

/// Counts the ones among the bits `[start, start + len)`.
///
/// # Panics
/// When the range reaches past the last word.
#[inline]
pub fn count_range(words: &[u64], start: usize, len: usize) -> usize {
    let mut ones = 0;
    for_each_word(start, len, |i, mask| ones += (words[i] & mask).count_ones() as usize);
    ones
}

/// Counts all ones.
#[inline]
pub fn count_ones(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// Whether bit `at` is one.
///
/// # Panics
/// When `at` lies past the last word.
#[inline]
pub fn test(words: &[u64], at: usize) -> bool {
    words[at / WORD_BITS] >> (at % WORD_BITS) & 1 != 0
}

/// The first one at or above `from`, in a slice whose words are first flipped with `flip`.
#[inline]
fn next_flipped(words: &[u64], from: usize, flip: u64) -> Option<usize> {
    let mut i = from / WORD_BITS;
    let mut word = (words.get(i)? ^ flip) & (u64::MAX << (from % WORD_BITS));
    while word == 0 {
        i += 1;
        word = words.get(i)? ^ flip;
    }
    Some(i * WORD_BITS + word.trailing_zeros() as usize)
}

/// The position of the first one at or above `from`.
#[inline]
pub fn next_one(words: &[u64], from: usize) -> Option<usize> {
    next_flipped(words, from, 0)
}

/// The position of the first zero at or above `from`.
#[inline]
pub fn next_zero(words: &[u64], from: usize) -> Option<usize> {
    next_flipped(words, from, u64::MAX)
}

/// The lowest position of `n` consecutive zeros, which may lie in several words.
///
/// No word below `from_word` is looked at: a promise of the caller that no run starts there.
///
/// # Panics
/// When `n` is 0.
pub fn find_zeros(words: &[u64], n: usize, from_word: usize) -> Option<usize> {
    assert!(n >= 1, "a run has at least one bit");
    // `run` zeros end where the current word begins.
    let mut run = 0;
    for (i, word) in words.iter().enumerate().skip(from_word) {
        let zeros = !word;
        let base = i * WORD_BITS;
        if run + zeros.trailing_ones() as usize >= n {
            return Some(base - run);
        }
        if let Some(inside) = find_bit_range64(zeros, n) {
            return Some(base + inside as usize);
        }
        run = if zeros == u64::MAX { run + WORD_BITS } else { zeros.leading_ones() as usize };
    }
    None
}

/// The positions of the ones, in rising order.
pub fn ones(words: &[u64]) -> Ones<'_> {
    Ones { words, base: 0, word: words.first().copied().unwrap_or(0) }
}

/// Iterator over the positions of ones; see [`ones`].
#[derive(Clone, Debug)]
pub struct Ones<'a> {
    /// The words from the current one on.
    words: &'a [u64],
    /// Position of bit 0 of the current word.
    base: usize,
    /// The current word without the ones that were returned.
    word: u64,
}

impl Iterator for Ones<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.word == 0 {
            self.words = self.words.get(1..)?;
            self.word = *self.words.first()?;
            self.base += WORD_BITS;
        }
        let bit = self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

/// A run of equal bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Position of the first bit.
    pub start: usize,
    /// Number of bits, at least 1.
    pub len: usize,
}

/// The maximal runs of ones, in rising order.
pub fn runs(words: &[u64]) -> Runs<'_> {
    Runs { words, at: 0 }
}

/// Iterator over maximal runs of ones; see [`runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    words: &'a [u64],
    /// Everything below has been returned or is zero.
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        let start = next_one(self.words, self.at)?;
        let end = next_zero(self.words, start).unwrap_or(self.words.len() * WORD_BITS);
        self.at = end;
        Some(Run { start, len: end - start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with few, many, clustered and scattered ones, from a fixed xorshift sequence.
    fn samples() -> impl Iterator<Item = u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let generated = (0..4000).map(move |round| match round % 4 {
            0 => random(),
            1 => random() & random() & random(),
            2 => random() | random() | random(),
            _ => mask64(random() as usize % 32, 1 + random() as usize % 32) | random() & random(),
        });
        [0, u64::MAX, 1, 1 << 63, u64::MAX >> 1, u64::MAX << 1].into_iter().chain(generated)
    }

    fn bit(words: &[u64], at: usize) -> bool {
        words[at / 64] & (1 << (at % 64)) != 0
    }

    fn slow_find(words: &[u64], n: usize, wanted: bool) -> Option<usize> {
        let bits = words.len() * 64;
        (0..bits)
            .find(|start| start + n <= bits && (*start..start + n).all(|i| bit(words, i) == wanted))
    }

    #[test]
    fn a_run_in_a_word_is_found_where_a_bit_by_bit_search_finds_it() {
        for word in samples() {
            for n in 1..=64 {
                let slow = slow_find(&[word], n, true);
                assert_eq!(find_bit_range64(word, n).map(|at| at as usize), slow, "{word:#x} {n}");
            }
            assert_eq!(find_bit_range64(word, 65), None);
        }
    }

    #[test]
    fn the_longest_run_is_the_longest_n_that_is_found() {
        for word in samples() {
            let slow = (1..=64).rev().find(|n| find_bit_range64(word, *n).is_some()).unwrap_or(0);
            for floor in 0..=64 {
                assert_eq!(longest_run64(word, floor), floor.max(slow as u32), "{word:#x} {floor}");
            }
        }
    }

    #[test]
    fn runs_of_zeros_are_found_across_words() {
        let words: Vec<u64> = samples().map(|word| word & !0xff00_0000_0000_00ff).collect();
        for slice in words.chunks_exact(4) {
            for n in [1, 2, 7, 16, 17, 40, 63, 64, 65, 100, 128, 200, 256, 257] {
                assert_eq!(find_zeros(slice, n, 0), slow_find(slice, n, false), "{slice:x?} {n}");
            }
        }
        assert_eq!(find_zeros(&[0; 4], 256, 0), Some(0));
        assert_eq!(find_zeros(&[1, 0, 0, 1 << 63], 190, 0), Some(1));
        assert_eq!(find_zeros(&[0, 0], 64, 1), Some(64));
    }

    #[test]
    fn ranges_are_set_cleared_and_counted_bit_by_bit() {
        let words: Vec<u64> = samples().take(300).collect();
        for (round, slice) in words.chunks_exact(3).enumerate() {
            let (start, len) = (round * 7 % 150, round * 11 % 42);
            let inside = |i: usize| (start..start + len).contains(&i);
            let (mut set, mut cleared) = (slice.to_vec(), slice.to_vec());
            set_range(&mut set, start, len);
            clear_range(&mut cleared, start, len);
            for i in 0..192 {
                assert_eq!(bit(&set, i), bit(slice, i) || inside(i));
                assert_eq!(bit(&cleared, i), bit(slice, i) && !inside(i));
                assert_eq!(test(slice, i), bit(slice, i));
            }
            let ones = (start..start + len).filter(|i| bit(slice, *i)).count();
            assert_eq!(count_range(slice, start, len), ones);
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_range_past_the_end_is_refused() {
        set_range(&mut [0; 2], 120, 9);
    }

    #[test]
    fn walking_ones_and_runs_visits_every_one_once() {
        let words: Vec<u64> = samples().take(1200).collect();
        for slice in words.chunks_exact(3).chain([&[][..], &[0, 0][..], &[u64::MAX; 2][..]]) {
            let slow: Vec<usize> = (0..slice.len() * 64).filter(|i| bit(slice, *i)).collect();
            assert_eq!(ones(slice).collect::<Vec<_>>(), slow);
            assert_eq!(count_ones(slice), slow.len());
            let by_runs: Vec<usize> =
                runs(slice).flat_map(|run| run.start..run.start + run.len).collect();
            assert_eq!(by_runs, slow);
            // Maximal: no run touches the next.
            let all: Vec<Run> = runs(slice).collect();
            assert!(all.windows(2).all(|pair| pair[0].start + pair[0].len < pair[1].start));
        }
    }

    #[test]
    fn the_next_one_and_the_next_zero_start_at_the_position_itself() {
        let words = [0b1011_0000, 0, u64::MAX];
        assert_eq!(next_one(&words, 0), Some(4));
        assert_eq!(next_one(&words, 4), Some(4));
        assert_eq!(next_one(&words, 6), Some(7));
        assert_eq!(next_one(&words, 8), Some(128));
        assert_eq!(next_zero(&words, 4), Some(6));
        assert_eq!(next_zero(&words, 128), None);
        assert_eq!(next_one(&words, 192), None);
        assert_eq!(next_zero(&words, 500), None);
    }
}

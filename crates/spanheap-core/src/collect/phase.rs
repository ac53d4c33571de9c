//! The phase word: what every closure reads when it begins.
//!
//! One atomic word holds the phase, the number of the cycle, and two bits that make an entering mutator
//! look closer. So the usual entry is one load and one comparison with the word of the last entry; and
//! phase, cycle and generation can never be seen in a mixture.

use crate::span::Generation;
use core::fmt;

/// Where a cycle stands, and so what a closure that begins now does. See the table in [`super`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// No cycle runs: plain stores, new objects unmarked.
    Idle = 0,
    /// First grace period: stores buffer what they overwrite.
    ArmingA = 1,
    /// Second grace period: stores as before, and new objects are buffered.
    ArmingB = 2,
    /// Marking: stores as before, and new objects are marked.
    Marking = 3,
}

/// Phase and cycle in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PhaseWord(u64);

const PHASE: u64 = 0b11;
const GATE: u64 = 0b100;
const CLOSED: u64 = 0b1000;
const CYCLE_SHIFT: u32 = 4;

impl PhaseWord {
    /// Before the first cycle.
    pub const FIRST: PhaseWord = PhaseWord::new(Phase::Idle, 0);

    /// A word that equals no phase word, for caches that were never filled.
    pub const NEVER: PhaseWord = PhaseWord(u64::MAX);

    /// The word for a phase of a cycle. While idle, the cycle is the last finished one.
    pub const fn new(phase: Phase, cycle: u32) -> PhaseWord {
        PhaseWord((cycle as u64) << CYCLE_SHIFT | phase as u64)
    }

    /// The word as stored.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The word that [`PhaseWord::bits`] gave.
    pub const fn from_bits(bits: u64) -> PhaseWord {
        PhaseWord(bits)
    }

    /// The phase.
    pub const fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Idle,
            1 => Phase::ArmingA,
            2 => Phase::ArmingB,
            _ => Phase::Marking,
        }
    }

    /// The running cycle, or the last finished one while idle.
    pub const fn cycle(self) -> u32 {
        (self.0 >> CYCLE_SHIFT) as u32
    }

    /// The generation of the heap in this phase: the last finished cycle.
    pub const fn generation(self) -> Generation {
        match self.phase() {
            Phase::Idle => Generation::new(self.cycle()),
            _ => Generation::new(self.cycle().wrapping_sub(1)),
        }
    }

    /// The same word with the gate closed: nobody may begin a closure now (checkmark mode only).
    pub const fn gated(self) -> PhaseWord {
        PhaseWord(self.0 | GATE)
    }

    /// Whether the gate is closed.
    pub const fn is_gated(self) -> bool {
        self.0 & GATE != 0
    }

    /// The word of a heap that is being dropped.
    pub const fn closed(self) -> PhaseWord {
        PhaseWord(self.0 | CLOSED)
    }

    /// Whether the heap is being dropped.
    pub const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}

impl fmt::Debug for PhaseWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of cycle {}", self.phase(), self.cycle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_moves_when_a_cycle_ends() {
        let before = PhaseWord::new(Phase::Idle, 4);
        for phase in [Phase::ArmingA, Phase::ArmingB, Phase::Marking] {
            let word = PhaseWord::new(phase, 5);
            assert_eq!((word.phase(), word.cycle()), (phase, 5));
            assert_eq!(word.generation(), before.generation());
        }
        assert_eq!(PhaseWord::new(Phase::Idle, 5).generation(), before.generation().next());
    }

    #[test]
    fn gate_and_phase_do_not_mix() {
        let word = PhaseWord::new(Phase::Marking, 9);
        assert!(word.gated().is_gated() && !word.is_gated());
        assert_eq!(word.gated().phase(), Phase::Marking);
        assert_eq!(word.gated().cycle(), 9);
        assert_ne!(word.gated(), word);
        assert!(word.closed().is_closed() && !word.gated().is_closed());
    }
}

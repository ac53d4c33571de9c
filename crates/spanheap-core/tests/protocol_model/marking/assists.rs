//! Part of the first model: a second worker, and closures of phase 3 that help with marking.
//!
//! Whoever helps takes a grey object out of the shared queue, reads its field, and pushes what it has found
//! there, if that was not marked. These are three steps, and between the first and the last the queue may
//! look empty while there is work.
//!
//! **A worker** is a thread of the collector, for which no round waits. So it is counted as *busy* as long as
//! it has something, and no round begins or ends while it is. Load-bearing is when the count moves: up in the
//! same step that takes the object, and down in no earlier one than that which pushes. (In the
//! implementation such a step is what happens under the lock under which the collector looks at both.)
//!
//! **A closure** that helps is inside. What it has taken before a round began is awaited by the round; and what it
//! takes in a round was made grey in that round, which is dirty then. So here no closure is counted, and
//! nothing is lost. To count them as well only makes rounds begin later.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Marking, State};
use crate::vocabulary::{Operand, Packer, Phase, Pointer, Set, Step, Unpacker};

/// How a worker is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Assist {
    /// From the step that takes the object to the one that pushes what it leads to.
    Counted,
    /// From a step after the one that takes the object.
    CountedLate,
    /// Up to the step before the one that pushes.
    CountedShort,
}

/// What somebody who helps is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// He has taken this object.
    Taken(u8),
    /// He has read this pointer from one.
    Read(Pointer),
}

/// A thread of the collector's that marks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Worker {
    pub(super) job: Option<Job>,
    pub(super) busy: bool,
}

impl Marking {
    /// The next step of an assist by mutator `i`, or the first of another one.
    pub(super) fn assists(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        helps(s, s.mutators[i as usize].job, |verb, operand, job, mut next| {
            next.mutators[i as usize].job = job;
            visit(Step::mutator(i, verb).on(operand), next);
        });
    }

    /// The next step of the worker.
    pub(super) fn works(&self, s: &State, how: Assist, visit: &mut impl FnMut(Step, State)) {
        let taken = matches!(s.worker.job, Some(Job::Taken(_)));
        if how == Assist::CountedLate && taken && !s.worker.busy {
            let mut next = *s;
            next.worker.busy = true;
            visit(Step::collector("worker says that it is busy"), next);
            return;
        }
        helps(s, s.worker.job, |verb, operand, job, mut next| {
            let busy = match job {
                Some(Job::Taken(_)) => how != Assist::CountedLate,
                Some(Job::Read(_)) => how != Assist::CountedShort,
                None => false,
            };
            next.worker = Worker { job, busy };
            visit(Step::collector(verb).on(operand), next);
        });
    }
}

/// The next steps of somebody who is at `job`, with what he is at then.
fn helps(
    s: &State,
    job: Option<Job>,
    mut visit: impl FnMut(&'static str, Operand, Option<Job>, State),
) {
    match job {
        None if !matches!(s.phase, Phase::Marking | Phase::Round) => {}
        None => {
            for x in s.grey.iter() {
                let next = State { grey: s.grey.without(x), ..*s };
                visit("takes, to scan it,", Operand::Object(x), Some(Job::Taken(x)), next);
            }
        }
        Some(Job::Taken(x)) => {
            let found = s.fields[x as usize];
            visit("scans for somebody", Operand::Object(x), Some(Job::Read(found)), *s);
        }
        Some(Job::Read(found)) => {
            let mut next = *s;
            next.shade(Set::of(found));
            visit("pushes", Operand::value(found), None, next);
        }
    }
}

pub(super) fn pack(job: Option<Job>, p: &mut Packer) {
    let (kind, operand) = match job {
        None => (0, None),
        Some(Job::Taken(x)) => (1, Some(x)),
        Some(Job::Read(found)) => (2, found),
    };
    p.bits(kind, 2);
    p.pointer(operand);
}

pub(super) fn unpack(u: &mut Unpacker) -> Option<Job> {
    match (u.bits(2), u.pointer()) {
        (0, _) => None,
        (1, operand) => operand.map(Job::Taken),
        (_, found) => Some(Job::Read(found)),
    }
}

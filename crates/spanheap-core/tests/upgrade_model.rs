//! Upgrading a weak pointer against the end of marking, checked exhaustively.
//!
//! The protocol's model (`protocol_model`) decides and clears in one step. Here it is taken apart as the collector
//! does it, and an upgrade too, with one target, one handle and one closure of the marking phase that goes on
//! beyond the end of its cycle:
//!
//! ```text
//!   the collector:  take and scan what is queued | settle | clear | end the cycle | sweep | the slot is used again
//!   the closure:    load the handle | look at the mark | retain, or ask what was decided | look again | load again
//! ```
//!
//! To retain is to mark the target and to queue it, in one step, if it is not marked by then.
//!
//! Every interleaving is visited. In each, an upgrade that returns the target returns it alive; one that returns
//! nothing finds it dead for ever; and what is returned alive stays so until the closure ends. Then each rule is
//! broken, one at a time, and the model must find out.
//!
//! Steps are atomic and totally ordered, so nothing here is about weak memory; the essay of `collect::weak` says
//! which loads and stores order the others.

use std::collections::BTreeSet;

/// A rule that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// The closure does not load the handle again after it has seen a mark.
    NoSecondLook,
    /// The collector settles although an upgraded object is in the queue, whose pointers nobody has followed.
    SettlesOverQueue,
    /// An upgrade marks the target, and queues it in a step of its own.
    QueuesLate,
    /// An upgrade after the decision goes by the handle alone.
    IgnoresDecision,
    /// The handle is cleared after the sweep.
    ClearsLate,
    /// What is not marked at the first look is dead if it was decided, whatever the mark says by then.
    NoSecondMark,
}

/// Where the closure stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum At {
    Outside,
    Loaded,
    /// Has seen the mark set, or clear.
    Marked,
    Unmarked,
    /// [`Broken::QueuesLate`]: has marked it, and it is in no queue.
    HasMarked,
    /// Was told that it is decided.
    Decided,
    /// Has the target, and holds it from here on.
    Holds,
    /// Was told that it is dead.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct State {
    at: At,
    handle: bool,
    /// The bit of the slot: the target's mark, and later that of whoever is allocated there.
    bit: bool,
    /// Whether the target is still in its slot.
    alive: bool,
    queued: bool,
    /// Whether the collector has followed the target's pointers.
    scanned: bool,
    settled: bool,
    cleared: bool,
    ended: bool,
    /// Whether something else leads to the target, which marking finds at any moment before it settles.
    reachable: bool,
    /// Upgrades that are left.
    upgrades: u8,
    /// Whether some upgrade has returned nothing.
    seen_dead: bool,
    fault: Option<&'static str>,
}

fn start(reachable: bool) -> State {
    State {
        at: At::Outside,
        handle: true,
        bit: false,
        alive: true,
        queued: false,
        scanned: false,
        settled: false,
        cleared: false,
        ended: false,
        reachable,
        upgrades: 2,
        seen_dead: false,
        fault: None,
    }
}

fn collector_steps(s: State, broken: Broken, next: &mut Vec<State>) {
    if !s.settled && (s.queued || (s.reachable && !s.bit)) {
        next.push(State { bit: true, queued: false, scanned: true, ..s });
    }
    let clean = !s.reachable || s.bit;
    if !s.settled && clean && (!s.queued || broken == Broken::SettlesOverQueue) {
        let lost = s.bit && !s.scanned;
        let fault = lost.then_some("what an object leads to that was upgraded is not marked");
        next.push(State { settled: true, fault, ..s });
    }
    let may_clear = match broken {
        Broken::ClearsLate => s.ended,
        _ => s.settled,
    };
    if may_clear && !s.cleared {
        next.push(State { cleared: true, handle: s.handle && (s.bit && s.alive), ..s });
    }
    if s.settled && !s.ended && (s.cleared || broken == Broken::ClearsLate) {
        next.push(State { ended: true, ..s });
    }
    // The sweep; and then somebody allocates in the slot.
    if s.ended && s.alive && !s.bit {
        let fault = (s.at == At::Holds).then_some("what a closure holds was freed");
        next.push(State { alive: false, fault: s.fault.or(fault), ..s });
    }
    if s.ended && !s.alive && !s.bit {
        next.push(State { bit: true, ..s });
    }
}

fn returns(s: State) -> State {
    let fault = if !s.alive {
        Some("an upgrade has returned freed memory")
    } else if s.seen_dead {
        Some("an object came back")
    } else {
        None
    };
    State { at: At::Holds, fault: s.fault.or(fault), ..s }
}

fn dies(s: State) -> State {
    let fault = (s.reachable && s.handle).then_some("an object that lives was called dead");
    State { at: At::None, seen_dead: true, fault: s.fault.or(fault), ..s }
}

fn closure_steps(s: State, broken: Broken, next: &mut Vec<State>) {
    match s.at {
        At::Outside if s.upgrades > 0 => {
            let s = State { upgrades: s.upgrades - 1, ..s };
            next.push(if s.handle { State { at: At::Loaded, ..s } } else { dies(s) });
        }
        At::Loaded => {
            next.push(State { at: if s.bit { At::Marked } else { At::Unmarked }, ..s });
        }
        At::Unmarked if !s.settled && broken == Broken::QueuesLate && !s.bit => {
            next.push(State { at: At::HasMarked, bit: true, ..s });
        }
        At::HasMarked => next.push(returns(State { queued: true, ..s })),
        At::Unmarked if !s.settled => {
            next.push(returns(State { bit: true, queued: s.queued || !s.bit, ..s }));
        }
        At::Unmarked if broken == Broken::IgnoresDecision => {
            next.push(if s.handle { returns(s) } else { dies(s) });
        }
        At::Unmarked if broken == Broken::NoSecondMark => next.push(dies(s)),
        At::Unmarked => next.push(State { at: At::Decided, ..s }),
        At::Decided => next.push(if s.bit { State { at: At::Marked, ..s } } else { dies(s) }),
        At::Marked if broken == Broken::NoSecondLook => next.push(returns(s)),
        At::Marked => next.push(if s.handle { returns(s) } else { dies(s) }),
        // It may try again, and must get the same; what it holds it goes on to hold.
        At::None if s.upgrades > 0 => next.push(State { at: At::Outside, ..s }),
        At::Outside | At::Holds | At::None => {}
    }
}

/// Visits every state, and returns how many there are and the faults.
fn explore(broken: Broken) -> (usize, BTreeSet<&'static str>) {
    let mut todo = vec![start(false), start(true)];
    let (mut seen, mut faults) = (BTreeSet::new(), BTreeSet::new());
    while let Some(state) = todo.pop() {
        if !seen.insert(state) {
            continue;
        }
        if let Some(fault) = state.fault {
            faults.insert(fault);
            continue;
        }
        collector_steps(state, broken, &mut todo);
        closure_steps(state, broken, &mut todo);
    }
    (seen.len(), faults)
}

#[test]
fn fault_44_in_no_interleaving_does_an_upgrade_return_freed_memory() {
    let (states, faults) = explore(Broken::Nothing);
    assert_eq!(faults, BTreeSet::new());
    assert_eq!(states, 87, "a rule of the model has changed");
}

#[test]
fn every_rule_of_upgrading_matters() {
    for broken in [
        Broken::NoSecondLook,
        Broken::SettlesOverQueue,
        Broken::QueuesLate,
        Broken::IgnoresDecision,
        Broken::ClearsLate,
        Broken::NoSecondMark,
    ] {
        let (states, faults) = explore(broken);
        println!("{broken:?}: {states} states, {faults:?}");
        assert!(
            !faults.is_empty(),
            "{broken:?} does no harm, so the model does not see what it is for"
        );
    }
}

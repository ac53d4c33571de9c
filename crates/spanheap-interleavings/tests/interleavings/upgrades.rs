//! Upgrading weak pointers while marking ends: the decision of what is dead, and the second look at the handle.
//!
//! Both files are the core's: the grey queue, and of the weak pointers what a closure of the marking phase does.
//! The collector's part is written down here again, in its order: settle, decide, clear the handle, sweep.
//!
//! # Safety
//! The object and its handle live until the threads of a program have been joined.
#![allow(unsafe_code)]

use crate::addr::{Addr, Bytes};
use crate::checker::{Os, Persistent, Watched, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

/// The cycle that marks.
const CYCLE: u32 = 1;

/// A slot: the mark bit of the object in it, what that holds, and what another object holds to which only this one
/// leads.
struct Slot {
    mark: AtomicBool,
    content: Watched,
    inner: Watched,
}

/// What the core's marking does to one bit.
mod mark {
    use super::{Addr, Ordering, Slot};

    fn slot(target: Addr) -> &'static Slot {
        // SAFETY: the slot lives as long as the threads that ask for it, and they keep nothing of it.
        unsafe { &*target.as_ptr::<Slot>() }
    }

    pub(super) fn is_marked<T>(_: u64, _: T, target: Addr) -> bool {
        slot(target).mark.load(Ordering::SeqCst)
    }

    pub(super) fn mark_directly(_: u64, _: u32, target: Addr) -> bool {
        !slot(target).mark.swap(true, Ordering::SeqCst)
    }
}

/// The heap of the collector: memory or none.
struct Heap(Persistent);

impl Heap {
    fn number(&self) -> u64 {
        1
    }

    fn os(&self) -> &Os {
        &Os
    }

    fn memory(&self) -> &Persistent {
        &self.0
    }
}

/// A collector, with the given versions of the two files.
macro_rules! world {
    ($world:ident, $grey:ident, $weak:ident) => {
        #[allow(unused, clippy::all)]
        mod $world {
            use super::{Heap, Persistent, mark};
            pub(crate) mod grey {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($grey), ".rs"));
            }
            mod weak {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($weak), ".rs"));
            }

            pub(crate) struct Collector {
                central: Heap,
                pub(crate) grey: grey::GreyQueue,
            }

            impl Collector {
                pub(crate) fn new(refuses: bool) -> Collector {
                    let central = Heap(Persistent::new(refuses));
                    Collector { central, grey: grey::GreyQueue::new() }
                }
            }
        }
    };
}

world!(real, grey, weak);
world!(entries_ignored, grey_entries_ignored, weak);
world!(decided_late, grey_decided_late, weak);
world!(decided_ignored, grey_decided_ignored, weak);
world!(one_look, grey, weak_one_look);
world!(decided_blindly, grey, weak_decided_blindly);

/// Two closures upgrade a weak pointer to an object that nothing else leads to, and use it, while the collector
/// ends its marking. If it finds the object dead, it clears the handle and sweeps; then somebody allocates
/// in the slot, which is marked again. Both closures have to see what the collector has decided. What the object leads
/// to dies, unless the collector has followed its pointer.
macro_rules! agrees_on_the_dead {
    ($world:ident, $refuses:expr) => {
        explore(3, || {
            let collector = $world::Collector::new($refuses);
            let (content, inner) = (Watched::new(), Watched::new());
            let slot = Box::new(Slot { mark: AtomicBool::new(false), content, inner });
            let target = Addr::of(&*slot);
            let shared = Arc::new((collector, AtomicUsize::new(target.get()), slot));
            shared.0.grey.begin(CYCLE, Bytes::new(1 << 20));
            shared.0.grey.begin_marking();
            let closures = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let target = shared.0.upgrade_while_marking(&shared.1, CYCLE);
                    let is_alive = !target.is_null();
                    if is_alive {
                        shared.2.content.look();
                        shared.2.inner.look();
                    }
                    is_alive
                })
            });
            let mut is_scanned = false;
            loop {
                shared.0.grey.drain(|_| is_scanned = true);
                if shared.0.grey.take_rescan() {
                    is_scanned |= shared.2.mark.load(Ordering::SeqCst);
                }
                if shared.0.grey.settle(true) {
                    break;
                }
            }
            let is_alive = shared.2.mark.load(Ordering::SeqCst);
            if !is_scanned {
                shared.2.inner.touch();
            }
            if !is_alive {
                shared.1.store(0, Ordering::Release);
                shared.2.content.touch();
                assert!(mark::mark_directly(1, CYCLE, target));
            }
            for closure in closures {
                assert_eq!(closure.join().expect("it ends"), is_alive, "all agree");
            }
        })
    };
}

#[test]
fn upgrades_agree_with_the_decision() {
    agrees_on_the_dead!(real, false);
}

#[test]
fn upgrades_without_memory_agree_with_the_decision() {
    agrees_on_the_dead!(real, true);
}

mutant!(
    a_decision_that_does_not_ask_for_entries_is_found,
    "Causality violation",
    agrees_on_the_dead!(entries_ignored, false)
);

mutant!(
    a_decision_in_two_steps_is_found,
    "Causality violation",
    agrees_on_the_dead!(decided_late, false)
);

mutant!(
    an_upgrade_that_does_not_ask_for_the_decision_is_found,
    "Causality violation",
    agrees_on_the_dead!(decided_ignored, false)
);

mutant!(
    an_upgrade_with_one_look_at_the_handle_is_found,
    "all agree",
    agrees_on_the_dead!(one_look, false)
);

mutant!(
    /// The other closure may have had the object marked since the first look. (In the core a grace period stands
    /// between the two, and that is enough, as the protocol's model shows; here there is only the second look.)
    an_upgrade_with_one_look_at_the_mark_is_found,
    "all agree",
    agrees_on_the_dead!(decided_blindly, false)
);

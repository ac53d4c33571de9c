//! The collector: a concurrent, precise mark-sweep cycle that never stops the world.
//!
//! # Words
//! - A **mutator** is a thread's handle on the heap. It is *outside*, and then holds no pointer into
//!   the heap but roots; or *inside* a closure, which no pointer can leave.
//! - The **epoch** of a closure is the phase that it read when it began. It acts by it to its end.
//! - A **grace period** begins when the collector, having published a phase, notes who is inside, and ends
//!   when each of those has left once. Only the collector waits for it; whoever has held it up for long pauses
//!   for a moment when he has left ([`gap`]), and nothing depends on that.
//!
//! # Phases
//! | phase | the collector | a store of a pointer | a new object |
//! |---|---|---|---|
//! | idle | waits for a trigger; may still sweep | plain | unmarked |
//! | arming A | waits for a grace period | swap, buffer the old value | unmarked |
//! | arming B | sweeps what is left; waits for a second grace period | the same | buffered: *grey* |
//! | marking | marks from the roots; termination rounds | the same | marked: *black*, never scanned |
//!
//! # Why nothing is lost
//! Marking retains what was reachable at its beginning (a snapshot). Let S be the end of the first grace
//! period: from S on, every closure buffers what it overwrites. Let S2 be the end of the second: every
//! closure that is active at S2 or later began after S. So whatever such a closure holds was (a) loaded
//! after S, along edges whose deletion has buffered the target; or (b) allocated in arming B, hence
//! buffered; or in marking, hence black; or (c) reached by a weak pointer, and then buffered, or found
//! marked ([`weak`]). By induction all of it, and what it reaches, is marked when
//! marking ends. No stack is ever scanned, and a closure may go on through marking, termination and
//! sweeping; if it is long, it only delays the collector's *next* step.
//!
//! Four details carry this, and the model in `tests/protocol_model.rs` shows an object lost without each:
//! two grace periods; grey allocation in arming B; buffers of raw pointers, marked or not; and the
//! barrier being an atomic swap.
//!
//! # Who marks
//! The collector's thread alone takes these steps. In marking, others help it to follow pointers: threads of
//! the heap's own, threads that offer their time, mutators in the middle of an allocation. They are counted while
//! they are at it, and "nothing grey left" includes that nobody is ([`crew`]).
//!
//! # Termination
//! With nothing grey left, the collector notes who is inside and waits until each has left. If since
//! the note anything was found that had not been marked, or somebody has marked an object on the spot for
//! want of memory, the round was dirty and is repeated. A clean round proves marking complete, and in the same
//! step it is *decided* what is dead: no weak pointer leads to an unmarked object from then on. Then the collector
//! alone clears weak pointers and ephemerons, and *revives* dead objects that have a finalizer, with all that
//! they reach ([`weak`]). This is still the marking phase; the next thing that mutators notice is *idle*.
//!
//! A cycle that cannot get there, because a trace function panics, a pointer was lost before marks were
//! clean, or the heap is dropped while a container is locked, *retains everything*: its sweeps mark first
//! what is allocated. Values that were dead before stay dead, and the next cycle begins afresh.
//!
//! # Containers under a lock
//! The collector reads one only while it holds its lock, which it only tries. A closure of an arming
//! phase buffers all pointers of a container each time that it locks it so as to change it. A closure of the
//! marking phase does so unless the container was scanned in this cycle already, and then counts as its
//! scanner: the collector passes over the container, locked or not. Who locks a container to read owes
//! nothing: what he finds he has loaded along an edge that is still there. What has its storage in the heap
//! hands over only the pointer to it; the storage is an object, whose pointer words change like any field.
//!
//! # The files
//! | file | what |
//! |---|---|
//! | [`phase`] | phase, cycle and generation in one word |
//! | [`registry`] | the mutators: inside or outside, grace periods |
//! | [`buffer`], [`grey`] | pointers on their way from barriers to the collector |
//! | [`roots`] | what the program holds |
//! | [`mark`], [`scan`], [`scan_chunk`] | marking, a page at a time, of objects and of values in user arenas |
//! | `ahead`, `fetch` | what was found and waits until its mark bit is there; what will be read next |
//! | `home` | what is found on the page that is being scanned |
//! | `dense`, [`kernel`] | reading all pointers of a page at once |
//! | `follow` | the few objects of a heap that is no deeper anywhere else |
//! | `leaves` | objects without pointers |
//! | [`crew`], [`page_queue`], [`page_ring`] | what the workers share: pages that wait, and who is at work |
//! | [`workers`], [`assist`] | who marks besides the collector's thread |
//! | [`scavenger`] | returning memory to the system between cycles |
//! | `verify` | a look at the whole heap, when somebody asks for it |
//! | `watch` | who keeps the collector waiting |
//! | [`gap`] | letting the collector act, after it has waited for long |
//! | [`cycle`] | the phases in order |
//! | `journal` | what is noted of a cycle, and who is told |
//! | [`arenas`], `undertaker` | what becomes of user arenas that were freed, in cycles and between them |
//! | [`weak`] | weak pointers, and what becomes of the dead |
//! | [`collector`], [`control`] | the thread, and requests to it |
//! | [`pacer`] | when to begin, and what allocating costs: numbers in, numbers out |
//! | [`mark_workers`] | how marking is shared out: numbers in, numbers out |
//! | [`limiter`] | how much of the processors the collector may take: numbers in, decisions out |
//! | [`memory_limit`] | a limit as one says it |
//! | [`pressure`] | telling the program that a limit is near |
//! | [`settings`] | what can be changed meanwhile, and the plan that follows |
//! | [`ration`] | how much of the processors a limit, and assists, may cost |
//! | `spent` | what the program's threads have spent on collecting |
//! | [`checkmark`] | verification by a second mark |

mod ahead;
pub(crate) mod arenas;
pub(crate) mod assist;
pub(crate) mod buffer;
pub(crate) mod checkmark;
pub(crate) mod collector;
pub(crate) mod control;
pub(crate) mod crew;
pub(crate) mod cycle;
mod dense;
mod fetch;
mod follow;
pub(crate) mod gap;
pub(crate) mod grey;
mod home;
mod journal;
pub mod kernel;
mod leaves;
pub mod limiter;
pub(crate) mod mark;
pub mod mark_workers;
mod memory_limit;
pub mod pacer;
pub(crate) mod page_queue;
pub(crate) mod page_ring;
pub(crate) mod phase;
pub mod pressure;
pub(crate) mod ration;
pub(crate) mod registry;
pub mod roots;
pub(crate) mod scan;
pub(crate) mod scan_chunk;
pub(crate) mod scavenger;
pub(crate) mod settings;
mod spent;
mod undertaker;
pub(crate) mod verify;
mod watch;
pub(crate) mod weak;
pub(crate) mod workers;

pub(crate) use collector::Collector;
pub use collector::Options;
pub use memory_limit::{LimitError, MemoryLimit};
pub use pacer::Policy;
pub(crate) use phase::{Phase, PhaseWord};

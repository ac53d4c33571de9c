//! User arenas through the runtime API: what lives, what dies, what faults, and what becomes of the addresses.
//!
//! | file | what |
//! |---|---|
//! | `world` | nodes, and heaps that collect on demand |
//! | `values` | values of all kinds and sizes, and where they lie |
//! | `faults` | accesses to freed arenas, in processes of their own |
//! | `refusals` | a system that refuses, and heaps that end |
//! | `threads` | several threads, thousands of arenas, a forked child |
//! | `lives` | what is reached through arenas lives, and nothing else |
//!
//! # Safety
//! The files keep the contract of the runtime API, which `world` states again where it is met.
#![allow(unsafe_code)]

mod faults;
#[path = "../kernel/mod.rs"]
mod kernel;
mod lives;
#[path = "../random/mod.rs"]
mod random;
mod refusals;
mod threads;
mod values;
mod world;

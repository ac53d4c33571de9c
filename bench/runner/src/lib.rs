//! The runner of the benchmark suite: which programs there are, what they are compared in, and what came of it.
//!
//! ```text
//! suite.toml, goals.toml          what is run and what is hoped for            `suite`, `goals`
//!        |
//! discover and build the systems  those that are not here are said to be not   `systems`, `build`
//!        |
//! rounds: case x system, in turns each run is watched and measured             `rounds`, `child`
//!        |
//! results.json                    everything that was seen, nothing derived    `results`
//!        |
//! medians, ratios, goals met      from the results alone                       `statistics`, `findings`
//!        |
//! table.md, report.html           for people                                   `table`, `page`
//! ```
//! **Whatever is shown is computed from the file of results**: `--from` makes the tables and the page again from an
//! earlier run. Nothing is left out because it looks bad: a run that failed, a checksum that differs and a goal
//! that is missed each have a place on the page.
//!
//! The programs know nothing of each other. They agree on the workloads, on their checksums, and on the keys of the
//! line that they print.

#![deny(unsafe_code)]

pub mod build;
pub mod child;
pub mod failure;
pub mod findings;
pub mod machine;
pub mod options;
pub mod page;
pub mod results;
pub mod rounds;
pub mod sheet;
pub mod statistics;
pub mod suite;
pub mod systems;
pub mod table;
pub mod units;

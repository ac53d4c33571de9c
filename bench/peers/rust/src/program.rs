//! What all programs do: read the arguments, run the workload, print one line.

use std::env;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::bench::systems::System;
use crate::bench::{Failure, Figure, Number, Outcome, PERCENTILES, Result, WORKLOADS, Workload};
use crate::options::Params;
use crate::process::{self, CpuTime};

/// The exit code that says that a system cannot do what was asked.
const NOT_APPLICABLE: u8 = 3;

/// The program of a system, with the arguments of the process.
pub fn main(system: &System) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(system, &arguments)));
    // What a panic had to say stands on standard error already.
    match result.unwrap_or_else(|_| Err(Failure::new("stopped by a panic"))) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {}: {failure}", system.name);
            ExitCode::from(if failure.is_not_applicable() { NOT_APPLICABLE } else { 1 })
        }
    }
}

/// Runs what the arguments name, and makes the line.
pub fn run(system: &System, arguments: &[String]) -> Result<String> {
    let name = arguments.first().map_or("", String::as_str);
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else {
        let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        let names = names.join(", ");
        return Err(Failure::new(format!("there is no workload {name:?}; there are {names}")));
    };
    let params = Params::parse(workload.keys, &arguments[1..])?;
    let Some((_, run)) = system.workloads.iter().find(|(known, _)| *known == name) else {
        return Err(Failure::not_applicable(format!("{name} cannot be done with it")));
    };
    if params.limit.is_some() {
        return Err(Failure::not_applicable("it knows no limit"));
    }
    if params.gc_percent.is_some() && !system.has_gc_percent {
        return Err(Failure::not_applicable("it has no gc_percent to be set"));
    }
    if params.gc_percent == Some(0) {
        return Err(Failure::not_applicable("it cannot be kept from collecting"));
    }
    let before = process::cpu_time();
    let started = Instant::now();
    let outcome = run(&params)?;
    let (wall, cpu) = (started.elapsed(), process::cpu_time().since(before));
    Ok(line(system, workload, &params, &outcome, wall, cpu))
}

/// The result, with the keys of `crates/spanheap-cli/src/bench/report.rs` in their order.
fn line(
    system: &System,
    workload: &Workload,
    params: &Params,
    outcome: &Outcome,
    wall: Duration,
    cpu: CpuTime,
) -> String {
    let mut settings = String::new();
    for (key, value) in params.own() {
        let _ = write!(settings, "\"{key}\":{value},");
    }
    let _ = write!(settings, "\"threads\":{}", params.threads);
    if let Some(percent) = params.gc_percent {
        let _ = write!(settings, ",\"gc_percent\":{percent}");
    }
    let mut line = format!(
        "{{\"workload\":\"{}\",\"subject\":\"{}\",\"params\":{{{settings}}},\"checksum\":{},\"wall_s\":{:?},\
         \"user_s\":{:?},\"sys_s\":{:?},\"peak_rss_bytes\":{}",
        workload.name,
        system.subject,
        outcome.checksum,
        wall.as_secs_f64(),
        cpu.user.as_secs_f64(),
        cpu.system.as_secs_f64(),
        process::peak_resident(),
    );
    if let Some((operation, latency)) = &outcome.latency {
        for (name, part) in PERCENTILES {
            let _ = write!(line, ",\"{operation}_{name}_ns\":{}", latency.quantile(part));
        }
    }
    for Figure { key, value } in &outcome.figures {
        let _ = match value {
            Number::Count(count) => write!(line, ",\"{key}\":{count}"),
            Number::Real(real) => write!(line, ",\"{key}\":{real:?}"),
        };
    }
    line.push('}');
    line
}

//! The table: a directory of the host, and the same through the pipe and through other servers.
//!
//! `make bench-fuse`, or `make bench-fuse-quick` with one round. In each round every contender is measured
//! once, on fresh mounts of the same directory, whose content the host has in its page cache; shown are the
//! medians of the rounds, and in brackets how many times the host's value that is. `bindfs` takes part where
//! it is installed, and libfuse's `passthrough_hp` where `FUSE_PIPE_BENCH_HP` names it. Needs root.
//!
//! `--on DIRECTORY` measures one directory as it is, such as one in a virtual machine: *cold* then means that
//! `/proc/sys/vm/drop_caches` was written to, and without the right to do that those rows are left out.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod contenders;
mod rows;
mod workloads;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Parser as _;
use serde_json::json;

use crate::{
    contenders::{Contender, Shown},
    rows::Row,
};

/// Measure a directory, and the same through FUSE
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// One round
    #[arg(long)]
    quick: bool,
    /// Rounds, of which the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Measure only this directory, as it is
    #[arg(long, value_name = "DIRECTORY")]
    on: Option<PathBuf>,
    /// Measure only contenders of these names
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// By contender and row: a value a round.
type Values = BTreeMap<(&'static str, Row), Vec<f64>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rounds = if arguments.quick { 1 } else { arguments.rounds.max(1) };
    let scratch = tempfile::tempdir()?;
    let mut values = Values::new();
    let names = match &arguments.on {
        Some(directory) => {
            let own = tempfile::tempdir_in(directory)?;
            workloads::prepare(own.path(), scratch.path())?;
            let mut cold = || Ok(fs::write("/proc/sys/vm/drop_caches", "3")?);
            let can = cold().is_ok();
            for _ in 0..rounds {
                let cold: Option<&mut dyn FnMut() -> Result<()>> = if can { Some(&mut cold) } else { None };
                add(&mut values, "here", workloads::measure(own.path(), scratch.path(), cold)?);
            }
            vec!["here"]
        }
        None => compare(&arguments.only, rounds, scratch.path(), &mut values)?,
    };
    let medians: BTreeMap<_, _> = values.into_iter().map(|(of, all)| (of, median(all))).collect();
    if arguments.json {
        let rows = medians.iter().map(|((of, row), value)| json!({"of": of, "row": row, "value": value}));
        println!("{:#}", json!({"rounds": rounds, "rows": rows.collect::<Vec<_>>()}));
    } else {
        print(&names, &medians, rounds);
    }
    Ok(())
}

fn compare(only: &[String], rounds: usize, scratch: &Path, values: &mut Values) -> Result<Vec<&'static str>> {
    let contenders: Vec<_> = Contender::all()
        .into_iter()
        .filter(|one| only.is_empty() || only.iter().any(|name| name == one.name()))
        .collect();
    let (directory, mountpoint) = (scratch.join("directory"), scratch.join("mountpoint"));
    fs::create_dir(&directory)?;
    fs::create_dir(&mountpoint)?;
    workloads::prepare(&directory, scratch)?;
    for _ in 0..rounds {
        for contender in &contenders {
            let mut shown: Option<Shown> = None;
            let mut anew = || -> Result<()> {
                // The mount before goes before there is another.
                shown = None;
                shown = Some(contender.show(&directory, &mountpoint, scratch)?);
                Ok(())
            };
            let place = if matches!(contender, Contender::Host) { &directory } else { &mountpoint };
            let measured = workloads::measure(place, scratch, Some(&mut anew))?;
            add(values, contender.name(), measured);
        }
    }
    Ok(contenders.iter().map(Contender::name).collect())
}

fn add(values: &mut Values, name: &'static str, measured: Vec<(Row, f64)>) {
    for (row, value) in measured {
        values.entry((name, row)).or_default().push(value);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(names: &[&'static str], medians: &BTreeMap<(&'static str, Row), f64>, rounds: usize) {
    println!("medians of {rounds}; in brackets times the host's; + and - say whether a target is met");
    print!("{:<43}", "");
    names.iter().for_each(|name| print!("{name:>19}"));
    println!();
    for row in Row::ALL {
        print!("{:<43}", row.label());
        let host = medians.get(&("host", row));
        for name in names {
            let cell = medians.get(&(*name, row)).map_or_else(
                || "-".to_owned(),
                |&value| {
                    let number = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
                    let Some(&host) = host.filter(|_| *name != "host") else { return number };
                    let met = row
                        .target(name)
                        .map_or(' ', |target| if target.is_met(value, host) { '+' } else { '-' });
                    let ratio = if row.is_rate() { host / value } else { value / host };
                    format!("{number} ({ratio:.1}){met}")
                },
            );
            print!("{cell:>19}");
        }
        println!();
    }
}

//! How fast clones answer, where their time goes, and what memory they have.
//!
//! Run with `make bench-clone`. One guest of 512 MiB is saved; then so many clones at once are started, each
//! by `fcvm snapshot run --exec`, and the time is taken from the start of that program to the first byte that
//! the command in the clone has written. Beside it, in turns: a cold `fcvm podman run` of the same image, to
//! its first byte. All in one run, by the same clock.
//!
//! Then `fcvm podman run` itself: booted, and warm, with another command and environment than what was prepared.
//!
//! - *fcvm's own* is what is done before the hypervisor starts: plan, network, disk.
//! - *PSS* is the hypervisors' share of memory as the kernel counts it, *private* what they alone have.
//!
//! Needs what `fcvm setup` makes.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results")]

use std::{
    env,
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fcvm_testkit::TestEnv;
use procfs::process::Process;

/// How many at once.
const GROUPS: [usize; 3] = [1, 4, 10];
/// Without it a run may start warm.
const NO_SNAPSHOT: &str = "FCVM_NO_SNAPSHOT";
/// How many are idle while their memory is looked at.
const IDLE: usize = 10;

fn main() -> anyhow::Result<()> {
    let quick = env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 3 } else { 15 };
    let env = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")).context("no VMs: see the line above")?;
    let idle = "echo ready; while :; do sleep 1000; done";
    env.run(&["-d", "--name", "source", "-m", "512m", "hello", "sh", "-c", idle]).run().assert_code(0);
    let follower = env.fcvm().args(["logs", "--follow", "source"]).spawn();
    follower.wait_for_stdout("ready\n");
    drop(follower);

    println!("| snapshot of 512 MiB | ms, median of {rounds} | longest |\n|---|---:|---:|");
    let mut saved: Vec<Vec<f64>> = vec![Vec::new(); 3];
    for number in 0..rounds {
        let tag = format!("warm-{number}");
        let output = env.fcvm().args(["snapshot", "create", "source", "--timings", "--tag", &tag]).run();
        output.assert_code(0);
        let numbers = output.stderr.lines().skip(1).filter_map(|line| line.split_whitespace().last());
        for (stage, number) in saved.iter_mut().zip(numbers) {
            stage.push(number.parse()?);
        }
    }
    for (name, stage) in ["disk frozen", "machine stands still", "all"].iter().zip(&saved) {
        println!("| {name} | {:.1} | {:.1} |", at(stage, 50), at(stage, 100));
    }
    env.fcvm().args(["rm", "-f", "source"]).run().assert_code(0);

    println!("\n| to the first byte | ms, p50 | p95 | of a cold start |\n|---|---:|---:|---:|");
    let clone = ["snapshot", "run", "--snapshot", "warm-0", "--exec", "echo hi"].map(String::from);
    let mut cold_run: Vec<String> = ["podman", "run", "--rm", "-m", "512m"].map(String::from).into();
    cold_run.extend(env.options().iter().map(|&option| option.to_owned()));
    cold_run.extend(["hello", "echo", "hi"].map(String::from));
    let (mut cold, mut warm) = (Vec::new(), vec![Vec::new(); GROUPS.len()]);
    for round in 0..rounds {
        // It takes long.
        if round % 5 == 0 {
            cold.push(first_byte(&env, &cold_run)?);
        }
        for (size, times) in GROUPS.iter().zip(&mut warm) {
            let started: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..*size).map(|_| scope.spawn(|| first_byte(&env, &clone))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for time in started {
                times.push(time?);
            }
        }
    }
    let ground = at(&cold, 50);
    println!("| cold start | {ground:.0} | {:.0} | 1 |", at(&cold, 95));
    for (size, times) in GROUPS.iter().zip(&warm) {
        let (middle, late) = (at(times, 50), at(times, 95));
        println!("| {size} at once | {middle:.0} | {late:.0} | {:.3} |", middle / ground);
    }

    stages(&env, rounds)?;
    warm_starts(&env, &cold_run, rounds)?;
    memory(&env)
}

/// A run of a container that boots, and one that goes on from a prepared VM, in turns.
fn warm_starts(env: &TestEnv, cold_run: &[String], rounds: usize) -> anyhow::Result<()> {
    let words: Vec<&str> = cold_run.iter().map(String::as_str).collect();
    let Some((["podman", "run"], rest)) = words.split_at_checked(2) else { anyhow::bail!("no run") };
    let prepare = env.fcvm().env_remove(NO_SNAPSHOT).args(["podman", "prepare"]).args(rest).run();
    prepare.assert_code(0);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cold.push(to_first_byte(env.fcvm().args(cold_run).into_command())?);
        // Of another command, with an environment of its own.
        let (last, before) = words.split_last().context("no run")?;
        let own =
            [&before[..2], &["-e", "WORD=hi"], &before[2..before.len() - 1], &["sh", "-c", "echo $WORD"]];
        ensure!(*last == "hi", "{last}");
        let command = env.fcvm().env_remove(NO_SNAPSHOT).args(own.concat()).into_command();
        warm.push(to_first_byte(command)?);
    }
    println!("\n| `fcvm podman run` to the first byte | ms, p50 | p95 | of a boot |\n|---|---:|---:|---:|");
    let ground = at(&cold, 50);
    for (name, times) in [("booted", &cold), ("warm", &warm)] {
        let middle = at(times, 50);
        println!("| {name} | {middle:.0} | {:.0} | {:.3} |", at(times, 95), middle / ground);
    }
    Ok(())
}

/// Where the time of one clone goes, by its owner's account.
fn stages(env: &TestEnv, rounds: usize) -> anyhow::Result<()> {
    let mut all: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let run = ["snapshot", "run", "--snapshot", "warm-0", "--timings", "--exec", "true"];
        let output = env.fcvm().args(run).run();
        output.assert_code(0);
        for line in output.stderr.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, took, _] = words[..] else { break };
            let took = took.parse()?;
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, times)) => times.push(took),
                None => all.push((name.to_owned(), vec![took])),
            }
            if name == "ready" {
                break;
            }
        }
    }
    println!("\n| stage of one clone | ms, median of {rounds} |\n|---|---:|");
    for (name, times) in &all {
        println!("| {name} | {:.0} |", at(times, 50));
    }
    Ok(())
}

/// What idle clones have of memory.
fn memory(env: &TestEnv) -> anyhow::Result<()> {
    let (count, name) = (IDLE.to_string(), "idle");
    let run = ["snapshot", "run", "--snapshot", "warm-0", "-d", "-n", &count, "--name", name];
    env.fcvm().args(run).run().assert_code(0);
    // Until what they do at first is done.
    thread::sleep(Duration::from_secs(3));
    let (mut pss, mut private) = (0, 0);
    let hypervisors = env.hypervisors();
    ensure!(hypervisors.len() == IDLE, "{} hypervisors", hypervisors.len());
    for pid in &hypervisors {
        let rollup = Process::new(*pid)?.smaps_rollup()?;
        for map in rollup.memory_map_rollup.iter() {
            let get = |key: &str| map.extension.map.get(key).copied().unwrap_or(0);
            pss += get("Pss");
            private += get("Private_Dirty") + get("Private_Clean");
        }
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("\n| memory of {IDLE} idle clones | MiB | a clone |\n|---|---:|---:|");
    for (name, bytes) in [("PSS", pss), ("private", private)] {
        println!("| {name} | {:.0} | {:.1} |", mib(bytes), mib(bytes) / IDLE as f64);
    }
    println!("| PSS / private | {:.2} | |", pss as f64 / private as f64);
    let names: Vec<_> = (1..=IDLE).map(|number| format!("{name}-{number}")).collect();
    env.fcvm().args(["rm", "-f"]).args(names).run().assert_code(0);
    Ok(())
}

/// Milliseconds from a start of fcvm to the first byte of its output; it is waited for after that.
fn first_byte(env: &TestEnv, arguments: &[String]) -> anyhow::Result<f64> {
    to_first_byte(env.fcvm().args(arguments).into_command())
}

/// The same of any start.
fn to_first_byte(mut command: Command) -> anyhow::Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let mut stdout = child.stdout.take().context("no output")?;
    let mut byte = [0];
    stdout.read_exact(&mut byte)?;
    let taken = begun.elapsed();
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "{command:?}");
    Ok(taken.as_secs_f64() * 1000.0)
}

/// The percentile of some figures.
fn at(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() * percent).div_ceil(100)).clamp(1, sorted.len()) - 1]
}

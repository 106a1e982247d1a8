//! How fast networks of VMs are, beside the host's own and beside the same ways without a VM.
//!
//! Run with `make bench-network`, as root. A host of its own, in namespaces, is the ground: nothing of it
//! depends on the real one's network. All rows are measured in one run, in turns, by iperf3 with one TCP
//! connection; the ratio is to the host's loopback.
//!
//! - *host loopback*: both ends in one namespace.
//! - *veth*: from the host to the outside, as a bridged VM's packets go, without namespace, rules and VM.
//! - *pasta*: from a namespace that pasta connects, as a rootless VM's do.
//! - *bridged*, *rootless*: from and to a guest.
//!
//! Needs what `fcvm setup` makes, iperf3 and pasta.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results")]

use std::{
    env,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use fcvm_testkit::{
    Layer, TestEnv, World,
    world::{HOST, OUTSIDE},
};
use serde_json::Value;

const PORT: &str = "5201";

fn main() -> anyhow::Result<()> {
    let quick = env::args().any(|argument| argument == "--quick");
    let (rounds, seconds) = if quick { (1, "2") } else { (5, "4") };
    let world = World::new().context("no namespaces, or a program is missing")?;
    let env = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")).context("no VMs: see the line above")?.on(&world);
    env.import("iperf", &Layer::new().busybox().program("/usr/bin/iperf3").to_tar());
    let _outside = Server::start(&world.enter_outside(), &[]);
    let _here = Server::start(&world.enter(), &["--bind", HOST[0]]);
    for mode in ["bridged", "rootless"] {
        let publish = format!("{}:{PORT}", if mode == "bridged" { 5301 } else { 5302 });
        let run = ["podman", "run", "-d", "--name", mode, "--network", mode, "-p", &publish];
        let command = ["iperf", "iperf3", "--server"];
        env.fcvm().args(run).args(env.options()).args(command).run().assert_code(0);
    }
    let published = |mode: &str| -> anyhow::Result<(String, String)> {
        let told = env.fcvm().args(["port", mode, PORT]).run().ok();
        let (address, port) = told.rsplit_once(':').context("no port")?;
        Ok((address.to_owned(), port.to_owned()))
    };
    let outside = (OUTSIDE[0].to_owned(), PORT.to_owned());
    let here = || From::Here(world.enter());
    let pasta = ["pasta", "--config-net", "--runas", "0", "--"].map(String::from);
    let rows = [
        ("host loopback", here(), (HOST[0].to_owned(), PORT.to_owned())),
        ("veth", here(), outside.clone()),
        ("pasta", From::Here([world.enter(), pasta.into()].concat()), outside.clone()),
        ("bridged, out", From::Guest("bridged"), outside.clone()),
        ("bridged, in", here(), published("bridged")?),
        ("rootless, out", From::Guest("rootless"), outside),
        ("rootless, in", here(), published("rootless")?),
    ];
    let mut speeds = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for ((_, from, to), speeds) in rows.iter().zip(&mut speeds) {
            speeds.push(measure(&env, from, to, seconds)?);
        }
    }
    println!("\n| | Gbit/s, median of {rounds} | of the host's loopback |\n|---|---:|---:|");
    let median = |speeds: &[f64]| {
        let mut sorted = speeds.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let ground = median(&speeds[0]);
    for ((name, ..), speeds) in rows.iter().zip(&speeds) {
        let speed = median(speeds);
        println!("| {name} | {speed:.2} | {:.4} |", speed / ground);
    }
    for mode in ["bridged", "rootless"] {
        env.fcvm().args(["rm", "--force", mode]).run().assert_code(0);
    }
    Ok(())
}

/// A server of iperf3, until it is dropped.
struct Server(Child);

impl Server {
    fn start(before: &[String], options: &[&str]) -> Self {
        let mut command = Command::new(&before[0]);
        command.args(&before[1..]).args(["iperf3", "--server"]).args(options);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Where a client is.
enum From {
    /// On the host, behind these words.
    Here(Vec<String>),
    /// In the guest of that name.
    Guest(&'static str),
}

/// Gbit/s that the server received.
fn measure(env: &TestEnv, from: &From, to: &(String, String), seconds: &str) -> anyhow::Result<f64> {
    let (address, port) = to;
    let client = ["iperf3", "--client", address, "--port", port, "--time", seconds, "--json"];
    let said = match from {
        From::Here(before) => {
            let mut command = Command::new(&before[0]);
            command.args(&before[1..]).args(client);
            let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
            String::from_utf8(output.stdout)?
        }
        From::Guest(name) => env.fcvm().args(["exec", name]).args(client).run().ok(),
    };
    let report: Value = serde_json::from_str(&said)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().context("no speed")?;
    Ok(bits / 1e9)
}

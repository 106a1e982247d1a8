//! Many boots under load, and many lives with sudden deaths in them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fcvm_testkit::{Running, TestEnv};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

/// Boots where `$FCVM_SOAK_BOOTS` does not say.
const BOOTS: usize = 20;

/// Boots more VMs at once than there are CPUs, and keeps all CPUs busy besides.
#[test]
fn slow_vm_soak_measured_alone() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let boots = std::env::var("FCVM_SOAK_BOOTS").map_or(BOOTS, |boots| boots.parse().unwrap());
    let cpus = thread::available_parallelism().unwrap().get();
    let (next, retried, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let failures = thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let workers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut failures = Vec::new();
                loop {
                    let boot = next.fetch_add(1, Ordering::Relaxed);
                    if boot >= boots {
                        return failures;
                    }
                    let script = format!("echo {boot}; exit 3");
                    let output = env.shell(&script).env("RUST_LOG", "warn").run();
                    let retries = output.stderr.matches("once again, with one CPU").count();
                    retried.fetch_add(retries, Ordering::Relaxed);
                    if output.status.code() != Some(3) || output.stdout() != format!("{boot}\n") {
                        failures.push(format!(
                            "boot {boot}: {}, {:?}\n{}",
                            output.status,
                            output.stdout(),
                            output.stderr
                        ));
                    }
                }
            })
        });
        let failures: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        failures
    });
    let retried = retried.into_inner();
    println!(
        "measured: {boots} boots, {retried} panicked or hung and were retried, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    env.assert_nothing_left();
}

/// Rounds of lives where `$FCVM_SOAK_ROUNDS` does not say.
const ROUNDS: u64 = 8;

/// Random enough: xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64, round: u64) -> Self {
        Self((seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn delay(&mut self, longest: u64) {
        thread::sleep(Duration::from_millis(self.below(longest)));
    }
}

/// What dies in a round.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Nobody,
    Parent,
    Supervisor,
    Hypervisor,
    Exec,
    Stop,
}

const VICTIMS: [Victim; 6] =
    [Victim::Nobody, Victim::Parent, Victim::Supervisor, Victim::Hypervisor, Victim::Exec, Victim::Stop];

/// One life of a VM in the background, with a sudden death in it or none.
fn live(env: &TestEnv, round: u64, seed: u64) {
    let mut random = Random::new(seed, round);
    let victim = VICTIMS[usize::try_from(random.below(VICTIMS.len() as u64)).unwrap()];
    eprintln!("round {round}: {victim:?}");
    let name = format!("vm-{round}");
    let fcvm = |arguments: &[&str]| env.fcvm().args(arguments).arg(&name);
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let run = env.run(&["-d", "-m", "256m", "--name", &name, "hello", "sh", "-c", script]);
    let remove = || drop(fcvm(&["rm", "--force"]).run().ok());
    if let Victim::Parent = victim {
        let parent = run.spawn();
        random.delay(8000);
        let code = parent.kill().code();
        assert!([0, 137].contains(&code), "round {round}: {code}");
        remove();
        return;
    }
    run.run().assert_code(0);
    let follower = fcvm(&["logs", "--follow"]).spawn();
    follower.wait_for_stdout("ready");
    drop(follower.kill());
    let exec = |command: &[&str]| fcvm(&["exec"]).args(command);
    let pid = |field: &str| {
        let text = env.fcvm().args(["inspect", "--format", field, &name]).run().ok();
        Pid::from_raw(text.parse().unwrap()).unwrap()
    };
    let code = |running: Running, expected: &[i32]| {
        let output = running.wait();
        assert!(expected.contains(&output.code()), "round {round}: {}\n{}", output.code(), output.stderr);
    };
    let ended = match victim {
        Victim::Nobody | Victim::Parent => {
            exec(&["echo", "hi"]).run().assert_stdout("hi");
            fcvm(&["stop"]).run().assert_code(0);
            "5"
        }
        Victim::Exec => {
            let running = exec(&["sleep", "1000"]).spawn();
            random.delay(2000);
            assert_eq!(running.kill().code(), 137);
            exec(&["echo", "hi"]).run().assert_stdout("hi");
            fcvm(&["stop"]).run().assert_code(0);
            "5"
        }
        Victim::Stop => {
            let running = fcvm(&["stop"]).spawn();
            random.delay(400);
            code(running_killed(running), &[0, 137]);
            fcvm(&["stop"]).run().assert_code(0);
            "5"
        }
        Victim::Supervisor | Victim::Hypervisor => {
            let field =
                if let Victim::Supervisor = victim { ".owner.pid" } else { ".hypervisor_process.pid" };
            let victim = pid(field);
            let kill = || match kill_process(victim, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => panic!("{error}"),
            };
            match random.below(3) {
                0 => {
                    kill();
                    code(exec(&["true"]).spawn(), &[125]);
                }
                1 => {
                    let running = exec(&["sleep", "1000"]).spawn();
                    random.delay(2000);
                    kill();
                    code(running, &[125]);
                }
                _ => {
                    let running = fcvm(&["stop"]).spawn();
                    random.delay(400);
                    kill();
                    // What was to end has ended.
                    code(running, &[0]);
                }
            }
            ""
        }
    };
    let waited = fcvm(&["wait"]).run();
    assert!([0, 125].contains(&waited.code()), "round {round}: {}", waited.stderr);
    if !ended.is_empty() {
        waited.assert_stdout(ended);
    }
    assert!(fcvm(&["logs"]).run().ok().starts_with("ready"));
    fcvm(&["rm"]).run().assert_code(0);
    assert_eq!(fcvm(&["inspect"]).run().code(), 125);
    // Whatever went wrong, a name that is free again tells that all is gone.
    remove();
}

fn running_killed(running: Running) -> Running {
    running.signal(Signal::KILL);
    running
}

/// All files below a directory.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

/// Memory of the host in kB: what is in files without a disk, and what could be had.
fn memory() -> [i64; 2] {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    [number("Shmem:"), number("MemAvailable:")]
}

/// Lives with sudden deaths, four at a time, in one data directory: nothing hangs, nothing is left.
#[test]
fn slow_vm_soak_of_lives_measured_alone() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("FCVM_SOAK_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("FCVM_SOAK_SEED").unwrap_or(now.as_secs());
    println!("measured: {rounds} rounds with FCVM_SOAK_SEED={seed}");
    env.shell("true").run().assert_code(0);
    let (files_before, [shared_before, available_before]) = (files(env.data()), memory());
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds {
                        return;
                    }
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(&env, round, seed))) {
                        failed.store(true, Ordering::Relaxed);
                        resume_unwind(panic);
                    }
                }
            });
        }
    });
    // Those whose parents died end by themselves.
    env.wait_for_processes();
    assert!(env.list().is_empty());
    env.assert_nothing_left();
    assert_eq!(files(env.data()), files_before);
    let [shared, available] = memory();
    println!(
        "measured: {} s; memory in kB: shared {shared_before} then {shared}, available {available_before} then {available}",
        begun.elapsed().as_secs()
    );
    assert!(shared - shared_before < 64 << 10, "memory is left behind");
}

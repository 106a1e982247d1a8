//! Many boots under load: every one runs the container.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use fcvm_testkit::TestEnv;

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

//! The same command line under the host's Podman and under fcvm: outputs and exit codes are equal.
//!
//! Where fcvm is to differ the case says so and why, and what both do is insisted on all the same.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

#[path = "parity/case.rs"]
mod case;
#[path = "parity/copy_cases.rs"]
mod copy_cases;
#[path = "parity/engine.rs"]
mod engine;
#[path = "parity/exec_cases.rs"]
mod exec_cases;
#[path = "parity/life_cases.rs"]
mod life_cases;
#[path = "parity/run_cases.rs"]
mod run_cases;

use engine::Place;

#[test]
fn root_vm_run_has_podmans_environment() {
    run(&[&[]], &run_cases::environment());
}

#[test]
fn root_vm_run_has_podmans_users_and_directories() {
    run(&[], &run_cases::users_and_directories());
}

#[test]
fn root_vm_run_has_podmans_entry_points() {
    run(&[], &run_cases::entry_points());
}

#[test]
fn root_vm_run_has_podmans_codes() {
    run(&[&[]], &run_cases::codes());
}

#[test]
fn root_vm_run_has_podmans_options() {
    run(&[], &run_cases::options());
}

#[test]
fn root_vm_run_has_podmans_streams() {
    run(&[&[], &["-i"]], &run_cases::streams());
}

#[test]
fn root_vm_exec_is_podmans() {
    let Some(place) = Place::new() else { return };
    let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
    let options = ["-d", "--name=vm", "--hostname=vm", "-e", "GIVEN=by run", "-w", "/root"];
    place.run_both(&options, &["idle", "sh", "-c", script]);
    place.compare("exec", &exec_cases::all());
    place.both(&["rm", "--force", "vm"]);
}

#[test]
fn root_vm_a_life_is_podmans() {
    let Some(place) = Place::new() else { return };
    place.live(&life_cases::all());
}

#[test]
fn root_vm_cp_is_podmans() {
    let Some(place) = Place::new() else { return };
    place.compare_copies();
}

/// Those of the kinds that are prepared start warm, the others boot.
fn run(prepared: &[&[&str]], cases: &[case::Case]) {
    let Some(mut place) = Place::new() else { return };
    place.prepare(prepared);
    place.compare("run", cases);
}

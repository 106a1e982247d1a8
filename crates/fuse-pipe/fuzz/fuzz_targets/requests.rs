//! `cargo +nightly fuzz run requests`, as root: see `hostile.rs`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../hostile.rs"]
mod hostile;

static WORLD: LazyLock<hostile::World> = LazyLock::new(hostile::World::new);

fuzz_target!(|bytes: &[u8]| WORLD.run(bytes));

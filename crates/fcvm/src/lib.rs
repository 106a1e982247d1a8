//! `fcvm`: OCI containers, each in a microVM of its own.
//!
//! [`cli`] parses, [`commands`] decides the order of things, and the domain
//! modules below do the work. Only [`output`] prints.

mod backoff;
pub mod cli;
pub mod commands;
pub mod copy;
mod elf;
pub mod exit;
pub mod failpoint;
pub mod hash;
pub mod health;
mod http;
pub mod hypervisor;
pub mod image;
pub mod network;
pub mod output;
pub mod process;
pub mod random;
pub mod setup;
pub mod snapshot;
pub mod state;
pub mod storage;
pub mod vm;
pub mod volume;
pub mod warm;

//! Firecracker.
//!
//! [`api`] is what a Firecracker process is told and asked, over its Unix socket.

pub mod api;

//! Images are judged by `e2fsck` and by the kernel.

mod content;
mod random;
mod replace;

//! What runs on an agent under a caller's eyes: execs today, shells later. Reaches agents through `fleet` only.

pub mod exec;

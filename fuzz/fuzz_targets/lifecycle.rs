//! Fuzz target `lifecycle`: histories of a tunnel against the invariants of its state machine, which is taken by its
//! sources, so that the master around it need not be built.

#![no_main]

#[path = "../../master/src/tunnel"]
#[allow(dead_code, reason = "a part of the room, for the part of it that is fuzzed")]
mod tunnel {
    pub(crate) mod lifecycle;
    pub(crate) mod reason;
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(broken) = tunnel::lifecycle::model::run(input) {
        panic!("{broken}");
    }
});

//! Runs one test body on each engine.

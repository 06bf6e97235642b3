//! Places at which a test lets a program end as kill -9 ends it: between one write and the next. Only programs with debug
//! assertions have them; in a release every call is empty. Decides nothing: what happens where is in `FAILPOINTS`.

/// Reads `FAILPOINTS` (`PLACE=return;PLACE=3*off->return`, as the `fail` crate has it). Once, at the start of a program.
pub fn from_environment() {
    #[cfg(feature = "failpoints")]
    if cfg!(debug_assertions) {
        // Its end would forget the places; they are for the life of the program.
        std::mem::forget(fail::FailScenario::setup());
    }
}

/// A place. With `return` as its action the program ends here and now: nothing is unwound, flushed or closed.
pub fn here(place: &str) {
    #[cfg(feature = "failpoints")]
    if cfg!(debug_assertions) && fail::eval(place, |_| ()).is_some() {
        std::process::abort();
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = place;
}

/// A place whose name is in two parts: an operation and a moment of it.
pub fn at(operation: &str, moment: &str) {
    #[cfg(feature = "failpoints")]
    if cfg!(debug_assertions) {
        here(&format!("{operation}.{moment}"));
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = (operation, moment);
}

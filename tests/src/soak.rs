//! How far a test goes: the short form that `make test` runs, or the full counts of `make soak`. Nothing else decides it.

/// Set by `make soak`. Unit tests, which cannot stand on this crate, look at the same variable.
pub const VARIABLE: &str = "LANDLINE_SOAK";

/// `short` in `make test`, `full` in `make soak`.
pub fn count<T>(short: T, full: T) -> T {
    if std::env::var_os(VARIABLE).is_some() { full } else { short }
}

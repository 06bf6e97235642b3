//! The audit trail as the rest of the master sees it. The chain itself, and who may stand in it, are the store's.

pub use crate::store::audit::{Actor, AuditEntry, AuditFilter, AuditRow, Outcome, Verdict};
